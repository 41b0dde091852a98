//! candle-transformers: our `candle` and `candle-gguf` directories in its float and quantized models, token by token.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::agreement::Bound;
use crate::npy::Matrix;
use crate::plant::{ROWS_SWAPPED, swap_rows};
use crate::synthetic;
use crate::table::{Fact, Report, Row};
use crate::tools::{Workshop, build};

const TOKENS: usize = 128;

/// Which bounds a model has: a random network passes on more of a difference than a trained one.
struct Bounds {
    /// Products in float32.
    float: Bound,
    /// Products of quantized matrices with rounded activations.
    rounded: Bound,
}

const FLOAT: &str = "both turn the weights into float32, compute in it, and differ in the order of sums and in exp alone";
const ROUNDED: &str = "candle, like ggml, rounds activations to blocks of 8-bit integers before a product with a quantized matrix; we decode the weights and multiply in float32";

static TRAINED: Bounds = Bounds {
    float: Bound {
        encoding: "trained models, products in float32",
        max_abs: 1e-4,
        rms_ratio: 2e-6,
        top1: 1.0,
        kl_mean: 1e-11,
        why: FLOAT,
        planted: ROWS_SWAPPED,
    },
    rounded: Bound {
        encoding: "trained models, activations in 8 bits",
        max_abs: 0.6,
        rms_ratio: 1.2e-2,
        top1: 0.95,
        kl_mean: 6e-4,
        why: ROUNDED,
        planted: "another type",
    },
};

static RANDOM: Bounds = Bounds {
    float: Bound {
        encoding: "random weights, products in float32",
        max_abs: 4e-4,
        rms_ratio: 8e-6,
        top1: 1.0,
        kl_mean: 2e-10,
        why: FLOAT,
        planted: ROWS_SWAPPED,
    },
    rounded: Bound {
        encoding: "random weights, activations in 8 bits",
        max_abs: 2.5,
        rms_ratio: 7e-2,
        top1: 0.9,
        kl_mean: 1.2e-2,
        why: ROUNDED,
        planted: "another type",
    },
};

/// A source, and how far candle may be from us on it.
struct Trial<'a> {
    name: &'static str,
    source: &'a Path,
    bounds: &'static Bounds,
}

impl Trial<'_> {
    /// Matrices in which a fault must show: one that all models have, and of RWKV-7a and 7b one of each part that only they have.
    fn planted(&self) -> &'static [&'static str] {
        match self.name {
            "random-rwkv7a" => &["blocks.1.att.output.weight", "blocks.1.ffn.s_emb_x.weight", "blocks.1.ffn.s1"],
            "random-rwkv7b" => &[
                "blocks.1.att.output.weight",
                "blocks.1.ffn.s_emb_x.weight",
                "blocks.1.qkv.qq.weight",
                "blocks.1.qkv.k_emb_x.weight",
                "blocks.1.qkv.v_emb_x.weight",
            ],
            "tiny-rwkv7" => &["blocks.1.att.output.weight"],
            _ => &["blocks.1.attention.output.weight"],
        }
    }
}

fn remove(directory: &Path) -> Result<(), String> {
    std::fs::remove_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))
}

const REMARKS: &[&str] = &[
    "Fault of candle (RWKV-5, RWKV-6): it normalises heads with the epsilon 1e-5 where the models were trained with 64e-5. Our files hold a value matrix divided by 8, which makes up for it exactly.",
    "Fault of candle (RWKV-5, RWKV-6): several tokens in one call get a wrong token shift. Here it gets one token a call.",
    "Fault of candle (RWKV-6): ranks of the low-rank pairs are computed from the number of heads, so that models other than those of 2048 and 4096 channels cannot be loaded; the trained fixture is one of them. The RWKV-6 here has random weights.",
    "candle has no quantized RWKV-7.",
];

/// Runs all comparisons.
pub fn run() -> Result<Report, String> {
    let shop = Workshop::new("candle", TOKENS)?;
    let program = build(&shop.root, "candle", "candle-logits")?;
    let peer = Peer { shop, program };
    let random = peer.shop.work.join("random-rwkv6.safetensors");
    synthetic::rwkv6(&random)?;
    let (five, seven) = (peer.shop.fixture(5), peer.shop.fixture(7));
    let five = Trial { name: "tiny-rwkv5", source: &five, bounds: &TRAINED };
    let six = Trial { name: "random-rwkv6", source: &random, bounds: &RANDOM };
    let seven = Trial { name: "tiny-rwkv7", source: &seven, bounds: &TRAINED };
    let (with_tables, with_attention) =
        (peer.shop.work.join("random-rwkv7a.safetensors"), peer.shop.work.join("random-rwkv7b.safetensors"));
    synthetic::rwkv7a(&with_tables)?;
    synthetic::rwkv7b(&with_attention)?;
    let with_tables = Trial { name: "random-rwkv7a", source: &with_tables, bounds: &RANDOM };
    let with_attention = Trial { name: "random-rwkv7b", source: &with_attention, bounds: &RANDOM };
    let mut rows = Vec::new();
    for model in [&five, &six, &seven, &with_tables, &with_attention] {
        peer.float(model, &mut rows)?;
    }
    peer.epsilon(&five, &mut rows)?;
    // Rows of 128 and 448 values hold no blocks of 256.
    peer.quantized(&five, &["f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"], &mut rows)?;
    peer.quantized(&six, &["f16", "q8_0", "q4_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k"], &mut rows)?;
    Ok(Report {
        peer: "candle-transformers 0.11.1".to_owned(),
        about: format!("Token by token, {TOKENS} tokens; both read the same directory."),
        rows,
        facts: vec![peer.refusal()],
        bounds: vec![&TRAINED.float, &TRAINED.rounded, &RANDOM.float, &RANDOM.rounded],
        remarks: REMARKS.to_vec(),
    })
}

struct Peer {
    shop: Workshop,
    program: PathBuf,
}

/// Has candle decode quantized matrices while loading, and multiply in float32.
const DECODE: (&str, &str) = ("CANDLE_DEQUANTIZE_ALL", "1");

impl Peer {
    fn theirs(&self, directory: &Path, environment: Option<(&str, &str)>) -> Result<Matrix, String> {
        let mut command = Command::new("nice");
        command.arg(&self.program).arg(directory).arg(&self.shop.tokens).env_remove(DECODE.0).envs(environment);
        Ok(self.shop.theirs(&mut command)?.0)
    }

    fn float(&self, model: &Trial, rows: &mut Vec<Row>) -> Result<(), String> {
        for encoding in ["f32", "f16", "bf16"] {
            let directory = self.shop.convert(model.source, "candle", encoding, &format!("{}-{encoding}.candle", model.name))?;
            let ours = self.shop.logits(&directory)?;
            let bound = &model.bounds.float;
            let row =
                |directory: &Path| Row::new([model.name, encoding, "float32"], "candle", bound, &ours, &self.theirs(directory, None)?);
            rows.push(row(&directory)?);
            for matrix in model.planted() {
                let wrong = self.shop.work.join("planted.candle");
                swap_rows(&directory, &wrong, matrix)?;
                rows.push(row(&wrong)?.planted(format!("{ROWS_SWAPPED} of {matrix}")));
                remove(&wrong)?;
            }
            remove(&directory)?;
        }
        Ok(())
    }

    /// A directory for Transformers has the same names, but the value matrices as they are: candle's own fault shows.
    fn epsilon(&self, model: &Trial, rows: &mut Vec<Row>) -> Result<(), String> {
        let directory = self.shop.convert(model.source, "hf", "f32", &format!("{}.hf", model.name))?;
        let (ours, theirs) = (self.shop.logits(&directory)?, self.theirs(&directory, None)?);
        let row = Row::new([model.name, "f32", "float32"], "hf", &model.bounds.float, &ours, &theirs)?;
        rows.push(row.planted("values not divided by 8, so that candle's epsilon shows"));
        Ok(())
    }

    /// Each type by both of candle's ways to multiply, and each with another type's file as a planted fault.
    fn quantized(&self, model: &Trial, encodings: &[&str], rows: &mut Vec<Row>) -> Result<(), String> {
        let mut all = Vec::new();
        for encoding in encodings {
            let directory = self.shop.convert(model.source, "candle-gguf", encoding, &format!("{}.candle-gguf", model.name))?;
            let theirs = [self.theirs(&directory, Some(DECODE))?, self.theirs(&directory, None)?];
            all.push((*encoding, self.shop.logits(&directory)?, theirs));
        }
        let ways = [("matrices decoded to float32", &model.bounds.float), ("activations in 8 bits", &model.bounds.rounded)];
        for (encoding, ours, theirs) in &all {
            let (planted, what) = if *encoding == "q4_0" { ("q8_0", "the file of q8_0") } else { ("q4_0", "the file of q4_0") };
            let (_, _, wrong) = all.iter().find(|(other, ..)| *other == planted).ok_or("a planted type that was not measured")?;
            for (((path, bound), theirs), wrong) in ways.iter().zip(theirs).zip(wrong) {
                if *encoding == "f16" && !std::ptr::eq(*bound, &model.bounds.float) {
                    // Float matrices are multiplied in float32 either way.
                    continue;
                }
                let name = [model.name, encoding, path];
                rows.push(Row::new(name, "candle-gguf", bound, ours, theirs)?);
                rows.push(Row::new(name, "candle-gguf", bound, ours, wrong)?.planted(what));
            }
        }
        Ok(())
    }

    /// A model that candle cannot load must not be written for it.
    fn refusal(&self) -> Fact {
        let found = self.shop.convert(&self.shop.fixture(6), "candle", "f32", "refused.candle");
        let passed = matches!(&found, Err(message) if message.contains("FixedSize"));
        let found = found.err().unwrap_or_else(|| "written".to_owned()).lines().last().unwrap_or_default().replace('|', "/");
        Fact { what: "tiny-rwkv6, whose ranks candle cannot load, is refused".to_owned(), found, passed }
    }
}
