//! Reference models. Their sizes are fixed when they are made, usually by
//! [`crate::ModelSpec::build`].

mod cnn;
mod gpt;
mod mlp;
mod resnet;

pub use cnn::Cnn;
pub use gpt::Gpt;
pub use mlp::Mlp;
pub use resnet::Resnet18;
