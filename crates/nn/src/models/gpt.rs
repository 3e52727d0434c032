//! A decoder-only transformer.

use halfstep_graph::{AttentionSpec, Graph, GraphError, Init, ValueId};

use crate::Model;
use crate::context::Context;
use crate::layers::{Dropout, Embedding, LayerNorm, Linear, add, gelu, gelu_tanh, project};
use crate::spec::{GptActivation, GptSpec};

/// Standard deviation of the first value of every matrix, as in GPT-2 (Radford et al. 2019).
const INIT: Init = Init::Normal { std: 0.02 };

/// x + attention(norm(x)), then x + feed-forward(norm(x)).
#[derive(Clone, Debug, PartialEq)]
struct Block {
    name: String,
    heads: usize,
    ln1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    drop1: Dropout,
    ln2: LayerNorm,
    up: Linear,
    activation: GptActivation,
    down: Linear,
    drop2: Dropout,
}

impl Block {
    fn new(name: String, &GptSpec { width, heads, dropout, activation, .. }: &GptSpec) -> Block {
        Block {
            name,
            heads,
            ln1: LayerNorm::new("ln1", width),
            qkv: Linear::new("qkv", width, 3 * width).with_init(INIT),
            proj: Linear::new("proj", width, width).with_init(INIT),
            drop1: Dropout::new("drop1", dropout),
            ln2: LayerNorm::new("ln2", width),
            up: Linear::new("up", width, 4 * width).with_init(INIT),
            activation,
            down: Linear::new("down", 4 * width, width).with_init(INIT),
            drop2: Dropout::new("drop2", dropout),
        }
    }

    fn forward(&self, g: &mut Graph, x: ValueId, ctx: &Context) -> Result<ValueId, GraphError> {
        g.scoped(&self.name, |g| {
            let y = self.ln1.forward(g, x)?;
            let qkv = self.qkv.forward(g, y)?;
            let spec = AttentionSpec { heads: self.heads, causal: true };
            let y = g.scoped("attention", |g| g.attention(qkv, spec))?;
            let y = self.proj.forward(g, y)?;
            let y = self.drop1.forward(g, y, ctx)?;
            let x = add(g, "add1", x, y)?;
            let y = self.ln2.forward(g, x)?;
            let y = self.up.forward(g, y)?;
            let y = match self.activation {
                GptActivation::Gelu => gelu(g, "gelu", y)?,
                GptActivation::GeluTanh => gelu_tanh(g, "gelu", y)?,
            };
            let y = self.down.forward(g, y)?;
            let y = self.drop2.forward(g, y, ctx)?;
            add(g, "add2", x, y)
        })
    }
}

/// GPT with learned positions, layer norm before each part, GELU (exact, unless another activation
/// is set), biases in every linear layer but the head, and the head's matrix tied to the token
/// table (Radford et al. 2019). Dropout follows the embedding and both parts of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt {
    tok: Embedding,
    pos: Embedding,
    drop: Dropout,
    blocks: Vec<Block>,
    ln: LayerNorm,
}

impl Gpt {
    /// For sequences of up to `length` tokens out of `vocab`; the width must be a multiple of
    /// the number of heads.
    pub fn new(vocab: usize, length: usize, spec: &GptSpec) -> Gpt {
        let block = |i| Block::new(format!("blocks.{i}"), spec);
        let &GptSpec { width, dropout, .. } = spec;
        Gpt {
            tok: Embedding::new("tok", vocab, width).with_init(INIT),
            pos: Embedding::new("pos", length, width).with_init(INIT),
            drop: Dropout::new("drop", dropout),
            blocks: (0..spec.layers).map(block).collect(),
            ln: LayerNorm::new("ln", width),
        }
    }
}

impl Model for Gpt {
    /// `[N, T]` of i32 to `[N, T, vocab]`. T may be shorter than the length the model was made for.
    fn forward(&self, g: &mut Graph, tokens: ValueId, ctx: &Context) -> Result<ValueId, GraphError> {
        let length = g.shape(tokens).last();
        let x = self.tok.forward(g, tokens)?;
        let positions = self.pos.table(g)?;
        let positions = g.scoped("pos", |g| g.slice(positions, 0, 0, length))?;
        let mut x = add(g, "embed", x, positions)?;
        x = self.drop.forward(g, x, ctx)?;
        for block in &self.blocks {
            x = block.forward(g, x, ctx)?;
        }
        x = self.ln.forward(g, x)?;
        let table = self.tok.table(g)?;
        g.scoped("head", |g| project(g, x, table, None))
    }
}
