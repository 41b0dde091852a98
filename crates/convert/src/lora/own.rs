//! A model whose file has the pairs of its own LoRA beside all weights: the same file seen as a model and as an adapter.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkv_forge_container::lint::Lint;
use rwkv_forge_container::{Opened, Sourced, TokenTable, Words};
use rwkv_forge_model::names::LoraName;
use rwkv_forge_model::{Configuration, MappedTensor, ModelDescription, ModelFile};
use rwkv_forge_tensor::{BoxError, TensorInfo, TensorSource};

/// Some tensors of a file. Everything else that is said of the file is said of them.
pub(super) struct Selection {
    file: Arc<dyn Opened>,
    tensors: Vec<TensorInfo>,
    /// Index in the file of each.
    places: Vec<usize>,
}

impl Selection {
    fn of(file: &Arc<dyn Opened>, wanted: impl Fn(&TensorInfo) -> bool) -> Self {
        let (places, tensors) = file.tensors().iter().cloned().enumerate().filter(|(_, info)| wanted(info)).unzip();
        Self { file: Arc::clone(file), tensors, places }
    }

    /// The weights, and the pairs beside them; `None` for a file without pairs.
    pub(super) fn divided(file: &Arc<dyn Opened>) -> Option<(Self, Self)> {
        let is_of_pair = |info: &TensorInfo| LoraName::parse(&info.name).is_some();
        let pairs = Self::of(file, is_of_pair);
        (!pairs.tensors.is_empty()).then(|| (Self::of(file, |info| !is_of_pair(info)), pairs))
    }
}

impl TensorSource for Selection {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn format(&self) -> &'static str {
        self.file.format()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.file.files()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        // An index that is none of these is none of the file's either, whose error then says so.
        self.file.read_at(self.places.get(index).copied().unwrap_or(usize::MAX), start, out)
    }

    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        self.file.check_integrity(progress)
    }

    fn metadata(&self) -> Vec<(String, String)> {
        self.file.metadata()
    }

    fn notes(&self) -> &[String] {
        self.file.notes()
    }
}

impl ModelFile for Selection {
    fn mapped(&self) -> Result<Vec<MappedTensor>, BoxError> {
        // Only files whose tensors have the names of whoever saved them have pairs.
        Ok(rwkv_forge_model::map_by_convention(&self.tensors)?)
    }

    fn may_lack_head(&self) -> bool {
        self.file.may_lack_head()
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        self.file.configuration()
    }
}

impl Opened for Selection {
    fn words(&self, model: &ModelDescription) -> Result<Words, BoxError> {
        self.file.words(model)
    }

    fn tokens(&self, model: &ModelDescription) -> Result<Option<Sourced<TokenTable>>, BoxError> {
        self.file.tokens(model)
    }

    fn lints(&self) -> Vec<Lint> {
        self.file.lints()
    }
}
