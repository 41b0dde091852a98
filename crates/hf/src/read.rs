//! Files with candle's names, and the undoing of what was changed for candle. Start at [`CandleFile`].

use rwkv_forge_container::lint::Lint;
use rwkv_forge_container::{Opened, Sourced, TokenTable, Words};
use rwkv_forge_model::names::Convention;
use rwkv_forge_model::{Configuration, MappedTensor, ModelDescription, ModelFile, ValueForm};
use rwkv_forge_tensor::{BoxError, TensorInfo, TensorSource, Wrapper};

use crate::error::HfError;
use crate::{EIGHTH, NAMING_KEY, VALUE_SCALE_KEY};

/// The matrices that the scale belongs to.
const VALUE: &str = "att.value.weight";

/// A safetensors file whose value matrices are scaled for candle, or a GGUF file with candle's names, from this program or
/// from others.
///
/// ```
/// use rwkv_forge_checkpoint::TensorFile;
/// use rwkv_forge_hf::CandleFile;
/// use rwkv_forge_model::{ModelFile, describe_mapped};
/// use rwkv_forge_tensor::TensorSource;
///
/// # use rwkv_forge_model::Version;
/// # use rwkv_forge_testkit::models::{Sizes, random_model, to_candle_6};
/// # let source = to_candle_6(random_model(Version::V6, &Sizes::TINY, 1));
/// // `source` is any open file with candle's names.
/// assert!(CandleFile::has_names(&source));
/// let file = CandleFile::new(Box::new(TensorFile::of(Box::new(source))));
/// let model = describe_mapped(file.tensors(), file.mapped()?)?;
/// let first = model.find("blocks.0.att.receptance.weight").expect("the name in checkpoints");
/// assert_eq!(file.tensors()[first.source_index].name, "rwkv.blocks.0.attention.receptance.weight");
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
pub struct CandleFile {
    source: Box<dyn Opened>,
}

impl CandleFile {
    /// True for files that carry one of our keys, which say what was changed for candle.
    #[must_use]
    pub fn has_key(source: &dyn TensorSource) -> bool {
        source.metadata().iter().any(|(key, _)| key == VALUE_SCALE_KEY || key == NAMING_KEY)
    }

    /// True for the names of Hugging Face's RWKV-4 to 6, which candle's own tool writes into GGUF files without any metadata.
    #[must_use]
    pub fn has_names(source: &dyn TensorSource) -> bool {
        source.tensors().iter().any(|info| info.name.starts_with("rwkv.blocks."))
    }

    /// Reads the tensors of `file` by candle's conventions.
    #[must_use]
    pub fn new(file: Box<dyn Opened>) -> Self {
        Self { source: file }
    }

    /// What the value matrices are stored as.
    fn value_form(&self) -> Result<ValueForm, HfError> {
        match self.source.metadata().into_iter().find(|(key, _)| key == VALUE_SCALE_KEY) {
            None => Ok(ValueForm::Canonical),
            Some((_, value)) if value == EIGHTH => Ok(ValueForm::Eighth),
            Some((_, found)) => Err(HfError::BadScale { file: self.source.path().to_path_buf(), key: VALUE_SCALE_KEY, found }),
        }
    }

    fn map(&self) -> Result<Vec<MappedTensor>, HfError> {
        let file = || self.source.path().to_path_buf();
        let infos = self.source.tensors();
        let decodable = |info: &&TensorInfo| info.encoding.is_dense() || rwkv_forge_quant::by_encoding(info.encoding).is_some();
        if let Some(info) = infos.iter().find(|info| !decodable(info)) {
            return Err(HfError::UnsupportedType { file: file(), tensor: info.name.clone(), name: info.encoding.name });
        }
        let mut mapped = Convention::of(infos).map(infos)?;
        let form = self.value_form()?;
        let mut scaled = form == ValueForm::Canonical;
        for tensor in mapped.iter_mut().filter(|tensor| tensor.name.ends_with(VALUE)) {
            tensor.recover = tensor.recover.with_form(form);
            scaled = true;
        }
        if scaled { Ok(mapped) } else { Err(HfError::ScaleOfNothing { file: file(), key: VALUE_SCALE_KEY, tensor: VALUE }) }
    }
}

impl Wrapper for CandleFile {
    fn wrapped(&self) -> &dyn TensorSource {
        self.source.as_ref()
    }
}

impl Opened for CandleFile {
    fn words(&self, model: &ModelDescription) -> Result<Words, BoxError> {
        self.source.words(model)
    }

    fn tokens(&self, model: &ModelDescription) -> Result<Option<Sourced<TokenTable>>, BoxError> {
        self.source.tokens(model)
    }

    fn lints(&self) -> Vec<Lint> {
        self.source.lints()
    }
}

impl ModelFile for CandleFile {
    fn mapped(&self) -> Result<Vec<MappedTensor>, BoxError> {
        Ok(self.map()?)
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        self.source.configuration()
    }
}
