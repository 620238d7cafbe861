//! The networks: tensors in, tensors out. One file each; names follow the checkpoints. Batch norm is folded into
//! the convolutions when the weights are loaded; every network takes any batch size.

pub mod convert;
pub mod layers;
pub mod resnet;
mod torch_file;
pub mod weights;
