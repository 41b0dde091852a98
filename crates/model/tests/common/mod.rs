//! What the test binaries of this crate share.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail loudly")]
#![allow(dead_code, reason = "each test binary uses a part of this")]

use rwkv_forge_model::{ModelError, Version, describe};
use rwkv_forge_tensor::{Diagnostic, Encoding, TensorInfo, TensorSource};
use rwkv_forge_testkit::models::{Options, Sizes, random_model_with};

/// Names and shapes of a complete model.
pub(crate) fn model(version: Version) -> Vec<TensorInfo> {
    model_with(version, &Sizes::TINY, &Options::default())
}

/// As [`model`], with everything chosen.
pub(crate) fn model_with(version: Version, sizes: &Sizes, options: &Options) -> Vec<TensorInfo> {
    random_model_with(version, sizes, options, 1).tensors().to_vec()
}

/// An f32 tensor's entry.
pub(crate) fn info(name: &str, shape: &[u64]) -> TensorInfo {
    TensorInfo { name: name.to_owned(), shape: shape.to_vec(), encoding: Encoding::F32 }
}

/// The error that these tensors must give.
pub(crate) fn refused(infos: &[TensorInfo]) -> ModelError {
    match describe(infos) {
        Ok(description) => panic!("accepted as {}", description.summary()),
        Err(error) => error,
    }
}

/// Asserts the kind of the error, and that its message contains `part`.
pub(crate) fn assert_refused(infos: &[TensorInfo], kind: &str, part: &str) {
    let error = refused(infos);
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    assert!(message.contains(part), "'{part}' is not in: {message}");
    assert!(!message.ends_with('.'), "{message}");
    assert!(!message.contains('\n'), "{message}");
}

/// The entry of this name.
pub(crate) fn find<'a>(infos: &'a mut [TensorInfo], name: &str) -> &'a mut TensorInfo {
    infos.iter_mut().find(|info| info.name == name).unwrap()
}

/// The same tensors without those of this name.
pub(crate) fn without(infos: &[TensorInfo], name: &str) -> Vec<TensorInfo> {
    infos.iter().filter(|info| info.name != name).cloned().collect()
}
