//! Random zeros in training.

use halfstep_graph::{Graph, GraphError, Op, ValueId};

use crate::context::{Context, Mode};

/// Zeroes elements with probability `rate` and divides the others by 1 − rate (Srivastava et al.
/// 2014); in evaluation it does nothing.
///
/// Draws are keyed by a number made from the layer's path, so that adding a dropout changes no
/// other's draws.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    name: String,
    rate: f64,
}

impl Dropout {
    /// Dropout with this probability of zero.
    pub fn new(name: impl Into<String>, rate: f64) -> Dropout {
        Dropout { name: name.into(), rate }
    }

    /// The same shape as `x`.
    ///
    /// # Errors
    /// The rate is negative or not below 1.
    pub fn forward(&self, g: &mut Graph, x: ValueId, ctx: &Context) -> Result<ValueId, GraphError> {
        if ctx.mode == Mode::Eval || self.rate == 0.0 {
            return Ok(x);
        }
        g.scoped(&self.name, |g| {
            let key = ctx.key(g);
            let id = free_id(g, &g.path(""));
            g.dropout(x, key, self.rate, id)
        })
    }
}

/// The path's hash, or the next number that no dropout of another path has.
fn free_id(g: &Graph, path: &str) -> u32 {
    let taken = |id: u32| {
        g.nodes.iter().any(|n| matches!(n.op, Op::Dropout { id: other, .. } if other == id) && n.name != path)
    };
    let mut id = fnv1a(path);
    while taken(id) {
        id = id.wrapping_add(1);
    }
    id
}

/// The FNV-1a hash of 32 bits (Fowler, Noll and Vo).
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfstep_graph::{Shape, ValueType};

    /// Known answers from the authors' test vectors.
    #[test]
    fn hash_matches_its_definition() {
        assert_eq!(fnv1a(""), 0x811c_9dc5);
        assert_eq!(fnv1a("a"), 0xe40c_292c);
        assert_eq!(fnv1a("foobar"), 0xbf9c_f968);
    }

    #[test]
    fn ids_are_stable_and_distinct() {
        let ids = |names: &[&str]| {
            let mut g = Graph::new();
            let x = g.input("x", ValueType::f32(Shape::from([2, 3])));
            for name in names {
                Dropout::new(*name, 0.5).forward(&mut g, x, &Context::train()).unwrap();
            }
            let id = |op: &Op| if let Op::Dropout { id, .. } = op { Some(*id) } else { None };
            g.nodes.iter().filter_map(|n| id(&n.op)).collect::<Vec<_>>()
        };
        let (two, three) = (ids(&["a", "c"]), ids(&["a", "b", "c"]));
        assert_eq!([two[0], two[1]], [three[0], three[2]]);
        assert!(three[1] != three[0] && three[1] != three[2]);
    }

    #[test]
    fn a_taken_number_is_passed_over() {
        let mut g = Graph::new();
        let x = g.input("x", ValueType::f32(Shape::from([2])));
        let ctx = Context::train();
        let key = ctx.key(&mut g);
        g.scoped("other", |g| g.dropout(x, key, 0.5, fnv1a("mine"))).unwrap();
        assert_eq!(free_id(&g, "mine"), fnv1a("mine") + 1);
        assert_eq!(free_id(&g, "other"), fnv1a("other"));
    }

    #[test]
    fn evaluation_draws_nothing() {
        let mut g = Graph::new();
        let x = g.input("x", ValueType::f32(Shape::from([2])));
        assert_eq!(Dropout::new("d", 0.5).forward(&mut g, x, &Context::eval()), Ok(x));
        assert_eq!(g.nodes.len(), 1);
    }

    #[test]
    fn a_rate_of_one_is_refused() {
        let mut g = Graph::new();
        let x = g.input("x", ValueType::f32(Shape::from([2])));
        assert!(Dropout::new("d", 1.0).forward(&mut g, x, &Context::train()).is_err());
    }
}
