//! What a predicate with its arguments and viewer filled in takes of memory.

use super::{Term, Tree};

impl Tree<Term> {
    /// The memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        let below = match self {
            Tree::Join(_, parts) => parts.iter().map(Tree::memory).sum(),
            Tree::Not(part) => part.memory(),
            Tree::Test(_, left, right) => left.memory() + right.memory(),
            Tree::Member(_, set) => set.memory(),
            Tree::Presence(_, term) => term.memory(),
        };
        size_of::<Tree<Term>>() + below
    }
}

impl Term {
    /// The memory that it takes beside itself.
    fn memory(&self) -> usize {
        match self {
            Term::Event(..) => 0,
            Term::Constant(constant) => constant.memory(),
        }
    }
}
