//! How much a file is wanted, and so each piece that holds bytes of it.

/// Ascending: of two files in one piece the greater one decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Not at all.
    Skip,
    /// After all others.
    Low,
    /// As any.
    #[default]
    Normal,
    /// Before all others.
    High,
}

impl Priority {
    /// Those that are fetched, the first first.
    pub const CLASSES: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// Whether it is fetched at all.
    pub const fn is_wanted(self) -> bool {
        !matches!(self, Self::Skip)
    }

    /// Its place in [`Self::CLASSES`]; what is skipped would come last of all.
    pub const fn class(self) -> usize {
        match self {
            Self::High => 0,
            Self::Normal => 1,
            Self::Low | Self::Skip => 2,
        }
    }

    /// By the name that people write.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "skip" => Self::Skip,
            "low" => Self::Low,
            "normal" => Self::Normal,
            "high" => Self::High,
            _ => return None,
        })
    }

    /// The name that people write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways_and_classes_descend() {
        for priority in [Priority::Skip, Priority::Low, Priority::Normal, Priority::High] {
            assert_eq!(Priority::from_name(priority.name()), Some(priority));
            assert_eq!(priority.is_wanted(), Priority::CLASSES.contains(&priority));
        }
        assert_eq!(Priority::from_name("High"), None);
        for (at, class) in Priority::CLASSES.into_iter().enumerate() {
            assert_eq!(class.class(), at);
        }
        assert!(Priority::CLASSES.windows(2).all(|pair| pair[0] > pair[1]));
    }
}
