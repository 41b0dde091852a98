//! Where activations are between layers.

use std::path::Path;

use rwkv_forge_io::{IoError, Spill};

/// A group's residual stream and values of layer 0.
enum Place {
    Nowhere,
    Memory(Vec<f32>, Vec<f32>),
    /// Offset and lengths of both.
    Disk(u64, usize, usize),
}

/// The activations of all groups.
pub(crate) struct Store {
    places: Vec<Place>,
    disk: Option<Spill>,
}

impl Store {
    pub(crate) fn new(groups: usize, disk: bool, directory: Option<&Path>) -> Result<Self, IoError> {
        let disk = if disk { Some(Spill::create(directory)?) } else { None };
        Ok(Self { places: std::iter::repeat_with(|| Place::Nowhere).take(groups).collect(), disk })
    }

    /// Takes a group's numbers; they are put back with [`Store::put`].
    pub(crate) fn take(&mut self, group: usize) -> Result<(Vec<f32>, Vec<f32>), IoError> {
        if let Place::Disk(..) = self.places[group] {
            return self.copy(group, true);
        }
        match std::mem::replace(&mut self.places[group], Place::Nowhere) {
            Place::Memory(x, v_first) => Ok((x, v_first)),
            Place::Nowhere | Place::Disk(..) => Ok((Vec::new(), Vec::new())),
        }
    }

    /// Puts a group's numbers where they are kept. Their sizes stay the same from layer to layer.
    pub(crate) fn put(&mut self, group: usize, x: Vec<f32>, v_first: Vec<f32>) -> Result<(), IoError> {
        let Some(disk) = &self.disk else {
            self.places[group] = Place::Memory(x, v_first);
            return Ok(());
        };
        let bytes = |values: &[f32]| values.len() as u64 * 4;
        let offset = match self.places[group] {
            Place::Disk(offset, first, second) if (first, second) == (x.len(), v_first.len()) => offset,
            Place::Nowhere | Place::Memory(..) | Place::Disk(..) => disk.reserve(bytes(&x) + bytes(&v_first)),
        };
        disk.write_f32(offset, &x)?;
        disk.write_f32(offset + bytes(&x), &v_first)?;
        self.places[group] = Place::Disk(offset, x.len(), v_first.len());
        Ok(())
    }

    /// Forgets the values of layer 0, which nobody needs after the last layer.
    pub(crate) fn drop_values(&mut self) {
        for place in &mut self.places {
            if let Place::Memory(_, v_first) = place {
                *v_first = Vec::new();
            }
        }
    }

    /// A copy of a group's residual stream.
    pub(crate) fn residual(&self, group: usize) -> Result<Vec<f32>, IoError> {
        Ok(self.copy(group, false)?.0)
    }

    fn copy(&self, group: usize, both: bool) -> Result<(Vec<f32>, Vec<f32>), IoError> {
        match (&self.places[group], &self.disk) {
            (Place::Memory(x, v_first), _) => Ok((x.clone(), v_first.clone())),
            (Place::Disk(offset, first, second), Some(disk)) => {
                let mut x = vec![0.0; *first];
                disk.read_f32(*offset, &mut x)?;
                let mut v_first = vec![0.0; if both { *second } else { 0 }];
                disk.read_f32(offset + *first as u64 * 4, &mut v_first)?;
                Ok((x, v_first))
            }
            _ => Ok((Vec::new(), Vec::new())),
        }
    }
}
