//! One conversion from beginning to end: write to a temporary file, read back, compare, record, rename.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rwkv_forge_container::{OpenOptions, Standing, WordDifference, Words};
use rwkv_forge_eval::{AgainstUnigram, Agreement, CompareOptions, Runnable, Thresholds};
use rwkv_forge_io::{Appeared, Claims, InputFile, OutputFile, OutputOptions};
use rwkv_forge_model::{DigestOf, FileLayout, OutputTensor, ValueForm};
use rwkv_forge_quant::EncodeStats;
use rwkv_forge_tensor::{BoxError, Encoding};
use rwkv_forge_weights::Stored;
use serde::Serialize;

use crate::blocks::copies_blocks;
use crate::draft::Blueprint;
use crate::error::ConvertError;
use crate::execute::{F16Loss, Job, Rounding, ZeroedBlocks, write_checksums};
use crate::open::{OpenModel, open};
use crate::options::{ConvertOptions, VerifyOptions};
use crate::prepare::{Preparation, Prepared};
use crate::probe::{PROBE_TEXT, probe_tokens};
use crate::start::StartFile;
use crate::target::Target;

/// Largest share, in percent, of a tensor's values other than zero, or of a state's layer, that f16 may turn into zero. In released checkpoints
/// the share is below a hundred-thousandth, since such values are a millionth of the tensor's usual ones; a tensor beyond
/// a hundredth has its values where f16 has none.
pub const MAX_FLUSHED_PERCENT: u64 = 1;

/// A part of the work, for progress displays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the source once for its digest and checksums.
    Checking,
    /// Writing tensors.
    Writing,
    /// Comparing with the source.
    Verifying,
}

/// Called with the stage, the amount just done and the total amount of that stage (bytes; steps for verifying).
pub type OnProgress<'a> = &'a (dyn Fn(Stage, u64, u64) + Sync);

/// What was done and measured.
#[derive(Debug, Serialize)]
pub struct Record {
    /// SHA-256 of each source file, by file name.
    pub source_sha256: Vec<(String, String)>,
    /// The key under which the model stands in the source, where one was given.
    pub source_key: Option<String>,
    /// Tensors of the source as no trained model has them, which were allowed, a sentence each.
    pub zero_tensors: Vec<String>,
    /// SHA-256 of each output file, by file name, when they were read back.
    pub output_sha256: Vec<(String, String)>,
    /// Bytes of all source files.
    pub source_bytes: u64,
    /// Bytes of the output.
    pub output_bytes: u64,
    /// What rounding lost at the small end.
    pub flushed_blocks: u64,
    /// Non-zero values that became zero in a 16-bit type.
    pub flushed_values: u64,
    /// Non-zero values that became subnormal in f16 and changed.
    pub subnormal_values: u64,
    /// Blocks of all tensors that became zero although their weights are not, whatever quantized them.
    pub zeroed_blocks: u64,
    /// The tensors that they are of.
    pub zeroed: Vec<ZeroedBlocks>,
    /// Where importance that tensors were quantized with is of no use, a sentence each.
    pub importance: Vec<String>,
    /// Tensors that were rounded to f16 and lost something.
    pub f16_losses: Vec<F16Loss>,
    /// True when every tensor is stored without any rounding.
    pub lossless: bool,
    /// Seconds for reading, quantizing and writing.
    pub write_seconds: f64,
    /// Seconds for the comparison.
    pub verify_seconds: f64,
    /// The comparison, unless it was skipped.
    pub agreement: Option<Agreement>,
    /// How well the source predicts the text of the comparison, beside an adaptive unigram; `None` without a comparison, for a single
    /// token, and where nobody knows the vocabulary, so that no text was read.
    pub prediction: Option<AgainstUnigram>,
    /// Who said what the file says besides its tensors.
    pub words: Vec<WordOrigin>,
    /// Name and SHA-256 of the file beside the output with the state that the model starts from, where the container has no place for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_state: Option<(String, String)>,
}

/// Who said one of the words of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WordOrigin {
    /// What the word is called: `template`, `eos`, or its key in the file's metadata.
    pub key: String,
    /// `option`, `source`, `beside` or `default`.
    pub origin: &'static str,
    /// The option, the file and the place in it, or why it is taken.
    pub from: String,
}

impl WordOrigin {
    /// Of all that a file gets.
    fn all(blueprint: &Blueprint) -> Vec<Self> {
        let entries = blueprint.words.entries().into_iter().filter(|entry| blueprint.holds(entry.word, &entry.key));
        entries.map(|entry| Self { from: entry.origin.to_string(), origin: entry.origin.kind(), key: entry.key }).collect()
    }
}

/// Converts `model` into `output` as its blueprint says. The output appears under its name only when it is complete and, unless
/// skipped, has been compared with its source.
///
/// ```
/// use std::path::Path;
///
/// use rwkv_forge_convert::container::by_name;
/// use rwkv_forge_convert::recipe::Recipe;
/// use rwkv_forge_convert::{ConvertOptions, OpenOptions, VerifyOptions, Vocabulary, blueprint, convert, open};
/// use rwkv_forge_eval::{Kernel, Thresholds};
///
/// # let output = std::env::temp_dir().join(format!("rwkv-forge-convert-{}.bin", std::process::id()));
/// let model = open(Path::new("../../fixtures/checkpoints/tiny-rwkv7.pth"), OpenOptions::default())?;
/// let recipe = Recipe::new(None, Some("q8_0"), &[])?;
/// // A file that loses more than a tenth of a nat a token is not kept.
/// let thresholds = Thresholds { max_kl: Some(0.1), ..Thresholds::default() };
/// let verify = VerifyOptions { text: None, tokens: 16, thresholds, kernel: Kernel::Reference };
/// let options = ConvertOptions::new(by_name("rwkv-cpp")?, &recipe, &Vocabulary::Bytes);
/// let options = ConvertOptions { verify: Some(verify), ..options };
/// let decided = blueprint(&model, &options)?;
/// let record = convert(&model, &decided, &output, &options, &|_stage, _done, _total| ())?;
/// assert_eq!(record.output_bytes, decided.layout.total_bytes());
/// assert!(record.agreement.expect("it was compared").kl.mean < 0.1);
/// # std::fs::remove_file(&output).unwrap();
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
///
/// # Errors
/// Everything that readers, writers, the recipe and the comparison refuse. No partial output is left behind.
pub fn convert(
    model: &OpenModel,
    blueprint: &Blueprint,
    output: &Path,
    options: &ConvertOptions<'_>,
    progress: OnProgress<'_>,
) -> Result<Record, BoxError> {
    let files = model.source().files();
    let claims = options.claims.cloned().unwrap_or_default();
    let source_bytes = model.source_bytes()?;
    let total_bytes = blueprint.layout.total_bytes();
    let output_options = output_options(model, blueprint, options, &claims)?;
    let target = Target::create(output, &blueprint.layout, blueprint.container, &output_options)?;
    let start = StartFile::write(model, blueprint, output, &output_options)?;
    let started = std::time::Instant::now();
    let (digests, stats) = rayon::join(
        || model.source().check_integrity(&|bytes| progress(Stage::Checking, bytes, source_bytes)),
        || {
            let rounding = write_all(model, blueprint, options.prepared.map(|prepared| prepared.model), &target, &|bytes| {
                progress(Stage::Writing, bytes, total_bytes)
            })?;
            check_unwritten(model, blueprint)?;
            Ok::<_, BoxError>(rounding)
        },
    );
    // A wrong checksum explains whatever else went wrong, so it is reported first.
    let digests = digests?;
    let Rounding { total: stats, f16: f16_losses, mut zeroed, changed } = stats?;
    zeroed.extend(zeroed_before(options.prepared));
    if !options.allow_f16_loss {
        refuse_f16_loss(&f16_losses, model, blueprint)?;
    }
    let mut record = Record {
        source_sha256: files.iter().map(|path| file_name(path)).zip(digests).collect(),
        source_key: model.key().map(str::to_owned),
        zero_tensors: model.holes().map(ToString::to_string).collect(),
        output_sha256: Vec::new(),
        source_bytes,
        output_bytes: total_bytes,
        flushed_blocks: stats.flushed_blocks,
        flushed_values: stats.flushed_values,
        subnormal_values: stats.subnormal_values,
        zeroed_blocks: zeroed.iter().map(|tensor| tensor.zeroed).sum(),
        zeroed,
        importance: options.prepared.map_or(&[][..], |prepared| prepared.tensors).iter().filter_map(Prepared::note).collect(),
        f16_losses,
        lossless: is_lossless(model, blueprint, stats, changed),
        write_seconds: started.elapsed().as_secs_f64(),
        verify_seconds: 0.0,
        agreement: None,
        prediction: None,
        words: WordOrigin::all(blueprint),
        start_state: start.as_ref().map(StartFile::named),
    };
    let mut text_sha256 = None;
    if let Some(verify) = &options.verify {
        let started = std::time::Instant::now();
        // Containers with checksums cannot be read back without them; those over late values are filled in again below.
        target.each_file(|layout, file| write_checksums(layout, file.temp_path(), file))?;
        let compared = target.staged(|written| read_back(model, blueprint, (written, start.as_ref()), verify, options.open, progress))?;
        let importance = options.prepared.and_then(|prepared| prepared.importance);
        judge(&compared.agreement, &record, &verify.thresholds, importance)?;
        record.agreement = Some(compared.agreement.summary());
        record.prediction = compared.prediction;
        text_sha256 = Some(compared.text_sha256);
        record.verify_seconds = started.elapsed().as_secs_f64();
    }
    target.each_file(|layout, file| {
        apply_patches(layout, &record, text_sha256.as_deref(), file)?;
        write_checksums(layout, file.temp_path(), file)
    })?;
    if options.verify.is_some() {
        // The patched header is read once more, by the same reader that users' files go through.
        record.output_sha256 = target.staged(|written| {
            let reread = open_written(written, options.open)?;
            // A single file still lies under the name of its temporary.
            let name = |path: &PathBuf| file_name(if path == written && target.is_renamed_later() { output } else { path });
            let names = reread.source().files().iter().map(name).collect::<Vec<_>>();
            Ok(names.into_iter().zip(reread.source().check_integrity(&|_| ())?).collect())
        })?;
    }
    write_digests(&target, &record)?;
    let start = start.map(StartFile::appear).transpose()?;
    // Unless this succeeds, the file beside the output disappears again.
    target.commit()?;
    start.map(Appeared::keep).transpose()?;
    Ok(record)
}

/// Fills in the digests of whole files. Those of files that were read back are known; the others are read for it.
fn write_digests(target: &Target<'_>, record: &Record) -> Result<(), BoxError> {
    let mut places = Vec::new();
    target.each_file(|layout, _| {
        places.extend(layout.digests.iter().map(|place| &place.of).cloned());
        Ok(())
    })?;
    let mut written: BTreeMap<String, String> = record.output_sha256.iter().cloned().collect();
    target.each_file(|_, file| {
        let name = file_name(file.path());
        if places.contains(&DigestOf::Output(name.clone())) && !written.contains_key(&name) {
            written.insert(name, InputFile::open(file.temp_path())?.sha256(&|_| (), &mut |_, _| ())?);
        }
        Ok(())
    })?;
    target.each_file(|layout, file| {
        for place in &layout.digests {
            let digest = match &place.of {
                DigestOf::Source(index) => record.source_sha256.get(*index).map(|(_, digest)| digest),
                DigestOf::Output(name) => written.get(name),
            };
            let digest = digest.ok_or_else(|| ConvertError::Internal(format!("nothing is known of {:?}", place.of)))?;
            file.write_all_at(place.offset, digest.as_bytes())?;
        }
        Ok(())
    })
}

/// Blocks that became zero when tensors were quantized before the conversion.
fn zeroed_before(prepared: Option<Preparation<'_>>) -> Vec<ZeroedBlocks> {
    let tensors = prepared.map_or(&[][..], |prepared| prepared.tensors).iter().filter(|tensor| tensor.zeroed_blocks > 0);
    let zeroed = tensors.map(|of| ZeroedBlocks { tensor: of.tensor.clone(), zeroed: of.zeroed_blocks, blocks: of.blocks });
    zeroed.collect()
}

/// Refuses, before any work, an output that [`convert`] would refuse for its name: because it exists, or would take the place of
/// something that is read or written too.
///
/// # Errors
/// As [`convert`].
pub fn check_output(model: &OpenModel, blueprint: &Blueprint, output: &Path, options: &ConvertOptions<'_>) -> Result<(), BoxError> {
    let claims = options.claims.cloned().unwrap_or_default();
    let options = output_options(model, blueprint, options, &claims)?;
    Target::check(output, &blueprint.layout, blueprint.container, &options)?;
    crate::start::check(model, blueprint, output, &options)
}

/// With the model's own files among the claims.
fn output_options<'c>(
    model: &OpenModel,
    blueprint: &Blueprint,
    options: &ConvertOptions<'_>,
    claims: &'c Claims,
) -> Result<OutputOptions<'c>, BoxError> {
    for (path, _) in model.inputs()? {
        claims.input("the source", &path);
    }
    Ok(OutputOptions { force: options.force, claims: Some(claims), role: "--output", expected_bytes: blueprint.layout.total_bytes() })
}

/// Writes all files of the target.
fn write_all(
    model: &OpenModel,
    blueprint: &Blueprint,
    prepared: Option<&rwkv_forge_weights::Model>,
    target: &Target<'_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Rounding, BoxError> {
    let mut all = Rounding::default();
    target.each_file(|layout, file| {
        let job = Job { model: prepared.unwrap_or(&model.model), layout, container: blueprint.container, choices: &blueprint.choices };
        let rounding = job.run(file, progress)?;
        all.total.add(rounding.total);
        all.f16.extend(rounding.f16);
        all.zeroed.extend(rounding.zeroed);
        all.changed += rounding.changed;
        Ok(())
    })?;
    Ok(all)
}

/// Looks at the values of stored tensors that the executor has not seen in full: what this container does without, or the model.
fn check_unwritten(model: &OpenModel, blueprint: &Blueprint) -> Result<(), BoxError> {
    let description = model.description();
    let specs: Vec<_> = description.tensors.iter().chain(description.start.iter().map(|start| &start.spec)).collect();
    let mut written = vec![false; specs.len()];
    for part in blueprint.layout.files().flat_map(|(_, layout)| &layout.tensors).flat_map(|out| &out.assembly.parts) {
        written[*part] = true;
    }
    // Pieces of each stored tensor that were seen, and of how many it consists.
    let mut pieces = vec![(0, 1); model.source().tensors().len()];
    for (spec, _) in specs.into_iter().zip(written).filter(|(_, written)| *written) {
        let (seen, all) = &mut pieces[spec.source_index];
        *seen += 1;
        *all = model.model.stored(spec)?.pieces();
    }
    let rest = pieces.iter().enumerate().filter(|(_, (seen, all))| seen < all).map(|(index, _)| index);
    rwkv_forge_quant::check_values(model.source(), rest, &|_| ())
}

/// Whether of so many values more became zero than [`MAX_FLUSHED_PERCENT`] allows.
pub(crate) fn loses_too_much(flushed: u64, non_zero: u64) -> bool {
    flushed.saturating_mul(100) > non_zero.saturating_mul(MAX_FLUSHED_PERCENT)
}

/// Refuses a file in which f16 wiped out a part of a tensor that matters.
fn refuse_f16_loss(losses: &[F16Loss], model: &OpenModel, blueprint: &Blueprint) -> Result<(), ConvertError> {
    let beyond = |loss: &&F16Loss| loses_too_much(loss.flushed, loss.non_zero);
    let Some(first) = losses.iter().find(beyond) else { return Ok(()) };
    // Options go by the model's names, and files by their own.
    let outputs = || blueprint.layout.files().flat_map(|(_, layout)| &layout.tensors);
    let made_of = losses.iter().filter(beyond).filter_map(|loss| outputs().find(|out| out.name == loss.tensor));
    let parts = made_of.flat_map(|out| &out.assembly.parts).filter_map(|part| model.description().part(*part));
    let names: Vec<&str> = parts.map(|spec| spec.name.as_str()).collect();
    Err(ConvertError::F16Loss {
        tensor: first.tensor.clone(),
        flushed: first.flushed,
        non_zero: first.non_zero,
        more: losses.iter().filter(beyond).count() - 1,
        instead: crate::wider::instead(blueprint.container, &blueprint.choices, Encoding::F16, &names),
    })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// True when every value survives unchanged: the same encoding, a widening of 16 bits to 32, or a narrowing by which no value is another.
fn is_lossless(model: &OpenModel, blueprint: &Blueprint, stats: EncodeStats, changed: u64) -> bool {
    let exact = model.description().tensors.iter().zip(&blueprint.choices).all(|(spec, choice)| {
        let stored = model.source().tensors()[spec.source_index].encoding;
        let is_narrow = |encoding: Encoding| encoding == Encoding::F16 || encoding == Encoding::BF16;
        let is_unchanged = stored.is_dense() && is_narrow(choice.encoding) && changed == 0;
        stored == choice.encoding || (is_narrow(stored) && choice.encoding == Encoding::F32) || is_unchanged
    });
    let kept = blueprint.layout.files().flat_map(|(_, layout)| &layout.tensors).all(|out| keeps_values(model, out));
    exact && kept && stats == EncodeStats::default()
}

/// True when assembling the stored tensor rounds nothing by itself: blocks are copied, and functions of values are exact or
/// in f32, in which the kernel computes them too.
fn keeps_values(model: &OpenModel, out: &OutputTensor) -> bool {
    let is_power_of_two = |form: ValueForm| form.is_exact();
    out.assembly.parts.iter().all(|part| {
        let Some(spec) = model.description().part(*part) else { return false };
        let Ok(Stored { form, .. }) = model.model.stored(spec) else { return false };
        let computed = is_power_of_two(form) && (out.encoding == Encoding::F32 || is_power_of_two(out.assembly.form));
        let exact = out.assembly.form == form || computed;
        if out.encoding.is_dense() { exact } else { copies_blocks(model, out) }
    })
}

/// A written file beside its source.
struct Compared {
    agreement: Agreement,
    prediction: Option<AgainstUnigram>,
    text_sha256: String,
}

/// A file that was just written. What a type made of a matrix is for the comparison to say, and holes of the source were allowed.
fn open_written(written: &Path, options: OpenOptions) -> Result<OpenModel, BoxError> {
    open(written, OpenOptions { allow_zero_tensors: true, ..options })
}

/// Opens what was written with the reader that everybody else's files go through, and compares it with the source.
fn read_back(
    model: &OpenModel,
    blueprint: &Blueprint,
    (written, start): (&Path, Option<&StartFile>),
    verify: &VerifyOptions<'_>,
    open_options: OpenOptions,
    progress: OnProgress<'_>,
) -> Result<Compared, BoxError> {
    let candidate = open_written(written, open_options)?;
    check_words(blueprint, candidate.words()?)?;
    let text = verify.text.unwrap_or(PROBE_TEXT.as_bytes());
    let rows = model.description().hyperparameters.vocabulary;
    let tokens = probe_tokens(text, blueprint.tokenizer(), rows, verify.tokens)?;
    let reference = Runnable::new(&model.model);
    // From the file beside it, as whoever runs the two of them does.
    let candidate = start.map_or_else(|| Ok(candidate.model.clone()), |start| start.state.start(&candidate.model))?;
    let candidate = Runnable::new(&candidate);
    let options = CompareOptions::new(&tokens, verify.kernel);
    let agreement = rwkv_forge_eval::compare(&reference, &candidate, &options, &mut |step| {
        progress(Stage::Verifying, step.done as u64, step.total as u64);
    })?;
    // Bytes that stand in for the tokens of an unknown vocabulary are no text to the model.
    let prediction = blueprint.tokenizer().and_then(|_| agreement.against_unigram(&tokens));
    Ok(Compared { agreement, prediction, text_sha256: rwkv_forge_io::sha256_hex(text) })
}

/// What the file was to say is what it says to whoever reads it.
fn check_words(blueprint: &Blueprint, written: &Words) -> Result<(), ConvertError> {
    let differences = blueprint.words.compare(written);
    let wrong = |one: &&WordDifference| one.standing == Standing::Differs && blueprint.holds(one.word, &one.key);
    match differences.iter().find(wrong) {
        None => Ok(()),
        Some(WordDifference { key, first, second, .. }) => Err(ConvertError::WordsNotKept {
            key: key.clone(),
            said: first.clone().unwrap_or_default(),
            found: second.clone().unwrap_or_default(),
        }),
    }
}

fn judge(agreement: &Agreement, record: &Record, thresholds: &Thresholds, importance: Option<&str>) -> Result<(), ConvertError> {
    if record.lossless && !agreement.identical {
        return Err(ConvertError::NotLossless { detail: format!("largest difference {:e}", agreement.max_abs.value) });
    }
    let violations = thresholds.violations(agreement);
    let importance = importance.map(str::to_owned);
    if violations.is_empty() { Ok(()) } else { Err(ConvertError::ThresholdNotMet { violations, importance }) }
}

/// Fills in the header's late values. Their lengths were fixed when the file was laid out.
fn apply_patches(layout: &FileLayout, record: &Record, text_sha256: Option<&str>, target: &OutputFile) -> Result<(), BoxError> {
    for patch in &layout.patches {
        let Some(mut value) = late_value(patch.name, record, text_sha256) else {
            return Err(ConvertError::Internal(format!("nothing is known of the late value {}", patch.name)).into());
        };
        if value.len() > patch.bytes {
            return Err(ConvertError::Internal(format!("{} takes {} bytes of {}", patch.name, value.len(), patch.bytes)).into());
        }
        value.resize(patch.bytes, b' ');
        target.write_all_at(patch.offset, &value)?;
    }
    Ok(())
}

/// The bytes of a late value; texts may be shorter than their place and are filled up with spaces.
fn late_value(name: &str, record: &Record, text_sha256: Option<&str>) -> Option<Vec<u8>> {
    let agreement = record.agreement.as_ref();
    let float = |value: Option<f64>| Some(value.unwrap_or(0.0).to_le_bytes().to_vec());
    let zeros = || "0".repeat(64).into_bytes();
    match name.trim_start_matches("rwkv_forge.") {
        "source.sha256" => Some(combined_digest(&record.source_sha256).into_bytes()),
        "verify.status" => Some(if agreement.is_some() { b"verified".to_vec() } else { b"skipped".to_vec() }),
        "verify.positions" => {
            let positions = agreement.map_or(0, |a| a.positions);
            Some(u32::try_from(positions).unwrap_or(u32::MAX).to_le_bytes().to_vec())
        }
        "lossless" => {
            let said: &[u8] = if record.lossless { b"yes" } else { b"no, some were rounded to the type of the file" };
            Some(said.to_vec())
        }
        "verify.kl_mean" => float(agreement.map(|a| a.kl.mean)),
        "verify.kl_max" => float(agreement.map(|a| a.kl.max)),
        "verify.top1" => float(agreement.map(|a| a.top1.fraction)),
        "verify.max_abs" => float(agreement.map(|a| a.max_abs.value)),
        "verify.rms_ratio" => float(agreement.map(|a| a.rms_ratio)),
        "verify.kl_interval" => Some(agreement.map_or_else(|| "skipped".to_owned(), interval).into_bytes()),
        "verify.text_sha256" => Some(text_sha256.map_or_else(zeros, |digest| digest.as_bytes().to_vec())),
        "verify" => Some(match agreement {
            None => b"skipped".to_vec(),
            // The residual stream predicts no token: it has no divergence and no most likely one.
            Some(a) if a.of_residual_stream => format!(
                "verified residual_stream positions={} max_abs={:e} rms_ratio={:e} text_sha256={}",
                a.positions,
                a.max_abs.value,
                a.rms_ratio,
                text_sha256.unwrap_or_default(),
            )
            .into_bytes(),
            Some(a) => format!(
                "verified positions={} kl_mean={:e} kl_max={:e} top1={:e} max_abs={:e} rms_ratio={:e} text_sha256={} kl_interval={}",
                a.positions,
                a.kl.mean,
                a.kl.max,
                a.top1.fraction,
                a.max_abs.value,
                a.rms_ratio,
                text_sha256.unwrap_or_default(),
                interval(a)
            )
            .into_bytes(),
        }),
        _ => None,
    }
}

/// The 95 % interval of the mean divergence, or why there is none.
fn interval(agreement: &Agreement) -> String {
    match (agreement.kl.interval, agreement.kl.no_interval) {
        (Some([low, high]), _) => format!("{low:e} to {high:e}"),
        (None, Some(why)) => format!("none: {why}"),
        (None, None) => "none".to_owned(),
    }
}

/// The digest of a source: the file's own, or for several shards the SHA-256 of the lines `DIGEST  NAME`, as
/// `sha256sum` prints them.
fn combined_digest(files: &[(String, String)]) -> String {
    match files {
        [(_, digest)] => digest.clone(),
        _ => rwkv_forge_io::sha256_hex(files.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect::<String>().as_bytes()),
    }
}
