//! All tests of this crate as one program, so that it is linked once.

mod albatross;
mod common;
mod configurations;
mod genuine;
mod keys;
mod legacy;
mod memory;
mod pickle;
mod rwkvq;
mod safetensors;
mod safetensors_write;
mod tensors;
mod torch_shards;
mod torch_write;
mod trainers;
mod zip;
