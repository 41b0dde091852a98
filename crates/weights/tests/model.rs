//! A model is its source and its description.
#![allow(clippy::unwrap_used, reason = "test code: failing loudly is its purpose, numbers are small")]

use std::sync::Arc;

use rwkv_forge_model::Version;
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_testkit::models::{Sizes, random_model};
use rwkv_forge_weights::Model;

#[test]
fn a_copy_shares_source_and_description() {
    for version in Version::ALL {
        let source = random_model(version, &Sizes::TINY, 2);
        let model = Model::describe(source.clone()).unwrap();
        let copy = model.clone();
        assert!(Arc::ptr_eq(&model.shared_source(), &copy.shared_source()));
        assert!(std::ptr::eq(model.description(), copy.description()));
        assert_eq!(model.description().version, version);
        assert_eq!((model.format(), model.path(), model.files()), ("memory", source.path(), Vec::new()));
        assert!(model.metadata().is_empty() && model.notes().is_empty());
        assert!(format!("{model:?}").contains("2 layers"), "{model:?}");
        // As a source it is what it was made from.
        assert_eq!(TensorSource::tensors(&model), source.tensors());
        let spec = model.spec("head.weight").unwrap();
        let (mut a, mut b) = ([0; 24], [0; 24]);
        model.read_at(spec.source_index, 8, &mut a).unwrap();
        source.read_at(spec.source_index, 8, &mut b).unwrap();
        assert_eq!(a, b);
        assert!(model.has("emb.weight") && !model.has("emb.bias"));
    }
}
