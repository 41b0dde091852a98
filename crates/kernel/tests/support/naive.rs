//! Plain f64 arithmetic for the independent implementations: loops over indices, no shared code with the kernel.

use std::collections::BTreeMap;

use rwkv_forge_weights::Model;

/// All tensors of a model as f64.
pub(crate) struct Tensors(BTreeMap<String, Vec<f64>>);

impl Tensors {
    pub(crate) fn load(model: &Model) -> Self {
        Self(model.description().tensors.iter().map(|spec| (spec.name.clone(), model.values(spec).unwrap())).collect())
    }

    pub(crate) fn get(&self, name: &str) -> &[f64] {
        self.0.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// The tensor `suffix` of a layer.
    pub(crate) fn at(&self, layer: usize, suffix: &str) -> &[f64] {
        self.get(&format!("blocks.{layer}.{suffix}"))
    }

    /// `weight [out, in]` times x.
    pub(crate) fn linear(&self, layer: usize, name: &str, x: &[f64]) -> Vec<f64> {
        matvec(self.at(layer, name), x)
    }

    pub(crate) fn layer_norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        norm(x, self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")), 1e-5)
    }
}

pub(crate) fn matvec(w: &[f64], x: &[f64]) -> Vec<f64> {
    w.chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
}

/// x times `w [in, out]`.
pub(crate) fn vecmat(x: &[f64], w: &[f64]) -> Vec<f64> {
    let out = w.len() / x.len();
    (0..out).map(|j| (0..x.len()).map(|i| x[i] * w[i * out + j]).sum()).collect()
}

pub(crate) fn norm(x: &[f64], w: &[f64], b: &[f64], eps: f64) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let var = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    (0..x.len()).map(|i| (x[i] - mean) / (var + eps).sqrt() * w[i] + b[i]).collect()
}

pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// a + (b - a) * mix.
pub(crate) fn lerp(a: &[f64], b: &[f64], mix: &[f64]) -> Vec<f64> {
    (0..a.len()).map(|i| a[i] + (b[i] - a[i]) * mix[i]).collect()
}

/// The rows before `rows`, zeros first.
pub(crate) fn previous(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut out = vec![vec![0.0; rows[0].len()]];
    out.extend_from_slice(&rows[..rows.len() - 1]);
    out
}

pub(crate) fn max_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "results of the same length");
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
