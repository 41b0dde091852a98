//! Every layout in which RWKV models are published, and what becomes of it here: one row a layout. The table in `docs/conversions.md` is made from
//! [`LAYOUTS`]; a test finds every container, format, naming and convention in it, so that a new one has to be added.

use rwkv_forge_checkpoint::{Pth, Safetensors, Torch};
use rwkv_forge_container::{Container, Format};
use rwkv_forge_ggml::RwkvCpp;
use rwkv_forge_gguf::Gguf;
use rwkv_forge_hf::{Candle, CandleGguf, HuggingFace};
use rwkv_forge_web_rwkv::{Prefab, St};

/// What becomes of files of a layout that are given as a source.
#[derive(Clone, Copy)]
pub enum Reading {
    /// They are opened as this format.
    As(&'static dyn Format),
    /// They are merged into the model that they are differences to (`--lora`).
    Merged,
    /// They are refused by what they are, with the next step.
    Refused,
}

/// A layout in which models are published.
#[derive(Clone, Copy)]
pub struct Layout {
    /// What it is.
    pub name: &'static str,
    /// Whose it is.
    pub whose: &'static str,
    /// What becomes of it as a source.
    pub reading: Reading,
    /// Names of the conventions ([`rwkv_forge_model::names::CONVENTIONS`]) and namings ([`crate::container::NAMINGS`]) of its tensors, where
    /// it is they that make the layout.
    pub naming: &'static [&'static str],
    /// What writes it; nothing, for layouts that are only read.
    pub written: Option<&'static dyn Container>,
    /// What it is checked against.
    pub checked: &'static str,
    /// A test that holds it: a file, from the workspace's root, and a function in it.
    pub test: (&'static str, &'static str),
}

/// All of them, by who publishes them.
pub static LAYOUTS: &[Layout] = &[
    Layout {
        name: "`.pth`, RWKV-4 to RWKV-7",
        whose: "BlinkDL, RWKV-LM, the `rwkv` package",
        reading: Reading::As(&Torch),
        naming: &["BlinkDL"],
        written: Some(&Pth),
        checked: "logits of the `rwkv` package; `torch.load` tensor by tensor",
        test: ("tests/roundtrip_pth.rs", "float_files_reproduce_the_logits_of_the_source"),
    },
    Layout {
        name: "`.pth`, RWKV-7a and 7b",
        whose: "BlinkDL, the `rwkv` package (7a), candle",
        reading: Reading::As(&Torch),
        naming: &["BlinkDL"],
        written: Some(&Pth),
        checked: "logits of the `rwkv` package (7a) and of candle-transformers (both), random weights",
        test: ("crates/kernel/tests/deep.rs", "logits_are_those_of_other_programs"),
    },
    Layout {
        name: "safetensors with the names of the `.pth`",
        whose: "ports",
        reading: Reading::As(&Safetensors),
        naming: &["BlinkDL with the prefix model."],
        written: Some(&Safetensors),
        checked: "the safetensors package, tensor by tensor",
        test: ("tests/roundtrip.rs", "all_versions_of_random_weights_survive_safetensors"),
    },
    Layout {
        name: "`RwkvForCausalLM`, RWKV-7",
        whose: "the official directories for Transformers and vLLM",
        reading: Reading::As(&Safetensors),
        naming: &["Hugging Face (RwkvForCausalLM, RWKV-7)"],
        written: None,
        checked: "the same tensors as the `.pth`",
        test: ("crates/model/tests/recognition.rs", "transformers_own_layout_is_read"),
    },
    Layout {
        name: "flash-linear-attention, RWKV-7",
        whose: "fla, rwkv7-hf, mlx-lm",
        reading: Reading::As(&Safetensors),
        naming: &["flash-linear-attention (RWKV-7)"],
        written: Some(&HuggingFace),
        checked: "logits of rwkv7-hf",
        test: ("tests/roundtrip_hf.rs", "every_version_and_float_type_reads_back"),
    },
    Layout {
        name: "Hugging Face's RWKV-4, 5 and 6",
        whose: "Transformers, custom code of the Hub",
        reading: Reading::As(&Safetensors),
        naming: &["Hugging Face (RWKV-4 to 6)"],
        written: Some(&HuggingFace),
        checked: "logits of Transformers (RWKV-4); names and shapes by a table of the check's own",
        test: ("tests/roundtrip_hf.rs", "every_version_and_float_type_reads_back"),
    },
    Layout {
        name: "ports that number `model.layers`, RWKV-7",
        whose: "trainers",
        reading: Reading::As(&Safetensors),
        naming: &["BlinkDL's names within model.layers (RWKV-7)"],
        written: None,
        checked: "the same logits as the `.pth`",
        test: ("tests/roundtrip_hf.rs", "foreign_names_are_sources_too"),
    },
    Layout {
        name: "hybrids with Qwen: QRWKV6, ARWKV",
        whose: "featherless-ai, RWKV-Red-Team",
        reading: Reading::As(&Safetensors),
        naming: &["Hugging Face (ARWKV)", "Hugging Face (QRWKV6)"],
        written: None,
        checked: "logits of an independent program; written as GGUF",
        test: ("tests/roundtrip_hybrids.rs", "float_files_reproduce_the_logits_of_the_source"),
    },
    Layout {
        name: "shards with an index, and the Hub's cache of links",
        whose: "Hugging Face",
        reading: Reading::As(&Safetensors),
        naming: &[],
        written: Some(&HuggingFace),
        checked: "shards against the whole file",
        test: ("crates/checkpoint/tests/safetensors.rs", "links_that_the_folder_holds_are_followed"),
    },
    Layout {
        name: "`pytorch_model.bin`, its shards and index",
        whose: "Hugging Face",
        reading: Reading::As(&Torch),
        naming: &[],
        written: None,
        checked: "shards against the whole file",
        test: ("crates/checkpoint/tests/torch_shards.rs", "an_index_and_its_directory_are_one_model"),
    },
    Layout {
        name: "what trainers save around a state dict, and names behind `_orig_mod.`, `module.` and the like",
        whose: "torch.compile, Lightning, DeepSpeed, RWKV-PEFT",
        reading: Reading::As(&Torch),
        naming: &[],
        written: None,
        checked: "the same model without them",
        test: ("crates/checkpoint/tests/genuine.rs", "notes_tell_what_was_unwrapped"),
    },
    Layout {
        name: "adapters of PEFT, and LoRA files",
        whose: "Hugging Face's PEFT; RWKV-LM-LoRA, RWKV-PEFT",
        reading: Reading::Merged,
        naming: &[],
        written: None,
        checked: "the formula, element by element",
        test: ("crates/convert/tests/adapter.rs", "names_of_every_convention_find_their_matrix"),
    },
    Layout {
        name: "language models within others: EmbeddingRWKV, ModRWKV",
        whose: "rwkv-emb, rwkv-vl",
        reading: Reading::As(&Safetensors),
        naming: &[],
        written: None,
        checked: "the same model by itself",
        test: ("tests/headless.rs", "only_known_companions_are_left_out"),
    },
    Layout {
        name: "ZeRO and FSDP shards",
        whose: "DeepSpeed, PyTorch",
        reading: Reading::Refused,
        naming: &[],
        written: None,
        checked: "the message names the trainer's own tool",
        test: ("crates/checkpoint/tests/pickle.rs", "p13_no_state_dict"),
    },
    Layout {
        name: "RWKV-8 (ROSA), RWKV-X",
        whose: "research",
        reading: Reading::Refused,
        naming: &[],
        written: None,
        checked: "the message names them",
        test: ("crates/model/tests/relatives.rs", "rwkv_8_rosa"),
    },
    Layout {
        name: "candle's directory, float",
        whose: "candle",
        reading: Reading::As(&Safetensors),
        naming: &["candle (RWKV-6)", "candle"],
        written: Some(&Candle),
        checked: "logits of candle-transformers",
        test: ("tests/roundtrip_hf.rs", "every_version_and_float_type_reads_back"),
    },
    Layout {
        name: "candle's directory, quantized",
        whose: "candle",
        reading: Reading::As(&Gguf),
        naming: &["candle (GGUF)"],
        written: Some(&CandleGguf),
        checked: "logits of candle-transformers",
        test: ("tests/roundtrip_hf.rs", "quantized_candle_files_read_back_and_know_their_remedy"),
    },
    Layout {
        name: "GGUF, RWKV-6, RWKV-7 and hybrids",
        whose: "llama.cpp and what is built on it",
        reading: Reading::As(&Gguf),
        naming: &[],
        written: Some(&Gguf),
        checked: "logits of llama.cpp; its quantizer's bytes; its converter's metadata",
        test: ("tests/roundtrip.rs", "gguf_is_a_source_too"),
    },
    Layout {
        name: "rwkv.cpp's `.bin`, RWKV-4 to RWKV-7",
        whose: "rwkv.cpp, RWKV-Runner",
        reading: Reading::As(&RwkvCpp),
        naming: &[],
        written: Some(&RwkvCpp),
        checked: "logits of rwkv.cpp",
        test: ("tests/roundtrip_rwkv_cpp.rs", "a_file_of_rwkv_cpps_own_converter_is_read_as_rwkv_cpp_runs_it"),
    },
    Layout {
        name: "web-rwkv's `.st`",
        whose: "web-rwkv, Ai00",
        reading: Reading::As(&Safetensors),
        naming: &[],
        written: Some(&St),
        checked: "logits of web-rwkv",
        test: ("tests/roundtrip_web_rwkv.rs", "every_version_reproduces_the_logits_of_a_source_in_f16"),
    },
    Layout {
        name: "web-rwkv's `.prefab`",
        whose: "web-rwkv, Ai00",
        reading: Reading::As(&Prefab),
        naming: &[],
        written: Some(&Prefab),
        checked: "logits of web-rwkv; its own prefabs' bytes",
        test: ("crates/web_rwkv/tests/prefab.rs", "quantized_blocks_come_back_bit_for_bit"),
    },
    Layout {
        name: "`.rwkvq`, RWKV-7 (versions 1 and 2: sb6, sym, asym, rtn, dense)",
        whose: "rwkv-quant, rwkv-metal, SwiftRWKV",
        reading: Reading::As(&Safetensors),
        naming: &[],
        written: None,
        checked: "every value of rwkv-quant's own reader",
        test: ("crates/checkpoint/tests/rwkvq.rs", "every_kind_has_the_values_of_the_package"),
    },
    Layout {
        name: "`.rwkvq`, pickled",
        whose: "rwkv-quant before its format had a version",
        reading: Reading::Refused,
        naming: &[],
        written: None,
        checked: "the message says how to rewrite it",
        test: ("crates/checkpoint/tests/rwkvq.rs", "r7_the_pickled_form_is_named"),
    },
    Layout {
        name: "int8 with `NAME_scale`, in `.pth` or safetensors",
        whose: "Albatross, rwkv_lightning",
        reading: Reading::As(&Torch),
        naming: &[],
        written: None,
        checked: "code times scale, by a table of the test's own",
        test: ("tests/rivals.rs", "int8_of_albatross_is_a_source"),
    },
];
