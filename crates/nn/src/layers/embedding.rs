//! A table of learned rows.

use halfstep_graph::{Graph, GraphError, Init, Shape, ValueId};

use super::weight;

/// `weight[rows, D]`, looked up by index.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    name: String,
    rows: usize,
    width: usize,
    init: Init,
}

impl Embedding {
    /// A table of `rows` rows of `width` numbers, drawn from the standard normal distribution as
    /// torch does.
    pub fn new(name: impl Into<String>, rows: usize, width: usize) -> Embedding {
        Embedding { name: name.into(), rows, width, init: Init::Normal { std: 1.0 } }
    }

    /// The same table with other first values.
    pub fn with_init(mut self, init: Init) -> Embedding {
        self.init = init;
        self
    }

    /// The whole table, `[rows, D]`: for positions and tied heads.
    ///
    /// # Errors
    /// A slot of this name has another shape.
    pub fn table(&self, g: &mut Graph) -> Result<ValueId, GraphError> {
        g.scoped(&self.name, |g| weight(g, "weight", Shape::from([self.rows, self.width]), self.init))
    }

    /// `[…]` of i32 to `[…, D]`.
    ///
    /// # Errors
    /// The indices are not i32; a slot of this name has another shape.
    pub fn forward(&self, g: &mut Graph, index: ValueId) -> Result<ValueId, GraphError> {
        let table = self.table(g)?;
        g.scoped(&self.name, |g| g.gather(table, index))
    }
}
