//! Where a value comes from: a flag, the environment, or one of the two files.
//!
//! Owns: which of several names wins, the sentence about a value that cannot be used, and what the log shall say of the
//! choice.

use super::ConfigError;

/// A group of settings: its flags, and how they are read.
pub(super) trait Group: Default {
    /// The flags as typed, every one a text, so that a bad value is said the same way from wherever it came. With
    /// `#[group(skip)]`: all groups' structs have this one name.
    type Flags: clap::Args + Default + Clone + std::fmt::Debug;

    /// Reads the group; what is set nowhere keeps its default.
    fn read(flags: &Self::Flags, from: &mut Sources<'_>) -> Result<Self, ConfigError>;
}

/// A value and where it came from.
#[derive(Clone)]
pub(super) struct Setting {
    /// The flag or variable.
    pub(super) name: &'static str,
    /// As it was written.
    pub(super) value: String,
}

impl Setting {
    /// The parsed value, or the sentence: which setting, what was read, what is allowed.
    pub(super) fn read<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        parse(self.value.trim()).map_err(|allowed| self.refuse(&allowed))
    }

    /// The same of a value that nobody may see.
    pub(super) fn read_secret<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        parse(self.value.trim()).map_err(|allowed| ConfigError(format!("{} must be {allowed}.", self.name)))
    }

    /// The sentence about a value that is not allowed.
    pub(super) fn refuse(&self, allowed: &str) -> ConfigError {
        ConfigError(format!("{} is `{}`, but must be {allowed}.", self.name, self.value))
    }
}

/// All sources at once.
pub(super) struct Sources<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Sentences for the log: which of several variables won.
    pub(super) notes: Vec<String>,
    /// Sentences for the log that deserve a look.
    pub(super) warnings: Vec<String>,
}

impl<'a> Sources<'a> {
    /// `lookup` finds a variable by its name.
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, notes: Vec::new(), warnings: Vec::new() }
    }

    /// The flag, else the first variable that is set.
    pub(super) fn first(
        &self,
        flag: &Option<String>,
        flag_name: &'static str,
        names: &[&'static str],
    ) -> Option<Setting> {
        if let Some(value) = flag {
            return Some(Setting { name: flag_name, value: value.clone() });
        }
        names.iter().find_map(|name| self.value(name).map(|value| Setting { name, value }))
    }

    /// Those of the variables that are set.
    pub(super) fn set(&self, names: &[&'static str]) -> Vec<&'static str> {
        names.iter().copied().filter(|name| self.value(name).is_some()).collect()
    }

    /// Notes which of several names won.
    pub(super) fn note_choice(&mut self, what: &str, winner: &Setting, names: &[&'static str]) {
        let losers: Vec<&str> = self.set(names).into_iter().filter(|name| *name != winner.name).collect();
        let over = if losers.is_empty() { String::new() } else { format!(", over {}", losers.join(", ")) };
        self.notes.push(format!("{what} from {}={}{over}.", winner.name, winner.value));
    }

    fn value(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.trim().is_empty())
    }
}
