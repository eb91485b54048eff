//! The five modules that decide what they may see: one file each, one pure decision each. All of them stand in order
//! in [`crate::admission`]. Whatever cannot be decided is a no.

pub mod federation;
pub mod fields;
pub mod rows;
pub mod scope;
pub mod tenant;

/// What a module says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// As far as the module is concerned, yes.
    Allow,
    /// No.
    Refuse,
}

impl Decision {
    /// Yes where it holds, else no.
    pub fn allow_if(holds: bool) -> Decision {
        if holds { Decision::Allow } else { Decision::Refuse }
    }

    /// Whether it is a yes.
    pub fn is_allowed(self) -> bool {
        self == Decision::Allow
    }
}
