//! What a tap sees are the numbers that the weights are multiplied with.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::support::{Loaded, ODD, options, tokens, versions};
use rwkv_forge_engine::{Arithmetic, Inputs, LayerStream, Tap};
use rwkv_forge_model::Version;

/// All inputs by name of the weight, `[tokens, columns]`; of RWKV-6's five matrices those of the last one.
#[derive(Default)]
struct Seen(Mutex<BTreeMap<String, (usize, Vec<f32>)>>);

impl Tap for Seen {
    fn inputs(&self, inputs: &Inputs<'_>) {
        let mut seen = self.0.lock().expect("no other thread");
        for name in inputs.weights {
            let (columns, rows) = seen.entry((*name).to_owned()).or_default();
            *columns = inputs.columns;
            rows.extend(inputs.rows);
        }
    }
}

/// Canonical weight `[outputs, inputs]` times rows, `[tokens, outputs]`, in f64.
fn product(model: &Loaded, name: &str, seen: &BTreeMap<String, (usize, Vec<f32>)>) -> Vec<f64> {
    let spec = model.description.find(name).expect("the tensor exists");
    let weight: Vec<f32> = model.model().values(spec).expect("it is in memory");
    let (columns, rows) = &seen[name];
    let dot = |w: &[f32], x: &[f32]| w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
    rows.chunks_exact(*columns).flat_map(|x| weight.chunks_exact(*columns).map(|w| dot(w, x)).collect::<Vec<_>>()).collect()
}

#[test]
fn inputs_of_every_weight_are_seen() {
    for version in versions() {
        let model = Loaded::random(version, &ODD, 3);
        let mut stream = LayerStream::new(&model.model(), &options(Arithmetic::Float, 2)).expect("a known version");
        let vocabulary = model.description.hyperparameters.vocabulary;
        let (a, b) = (tokens(150, vocabulary), tokens(9, vocabulary));
        let mut batch = stream.embed(&[&a, &b]).expect("tokens are in the vocabulary");
        let before = batch.x.clone();
        let layer = stream.load(0).expect("the layer loads");
        let mut states = stream.new_states(2);
        let seen = Seen::default();
        stream.forward(&layer, &mut batch, &mut states, Some(&seen)).expect("all fits");
        let seen = seen.0.into_inner().expect("no other thread");
        let is_weight = |role: rwkv_forge_model::TensorRole| role.tensor_use() == rwkv_forge_model::TensorUse::Linear || role.is_lora();
        let mut expected: Vec<&str> =
            model.description.tensors.iter().filter(|spec| spec.layer == Some(0) && is_weight(spec.role)).map(|spec| &*spec.name).collect();
        expected.sort_unstable();
        assert_eq!(seen.keys().collect::<Vec<_>>(), expected, "{version}");
        // Both halves of RWKV-7's layer add a product to the residual stream and nothing else.
        if version == Version::V7 {
            let (output, value) =
                (product(&model, "blocks.0.att.output.weight", &seen), product(&model, "blocks.0.ffn.value.weight", &seen));
            let worst = before
                .iter()
                .zip(&batch.x)
                .zip(output.iter().zip(&value))
                .map(|((before, after), (output, value))| (f64::from(*after) - f64::from(*before) - output - value).abs());
            // Rounding of f32 sums of this width; rows in another order would be off by the size of the products, about 1.
            assert!(worst.fold(0.0, f64::max) < 1e-4, "{version}");
        }
    }
}
