//! One file per command: its arguments, and what it does with them.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod collect;
pub(crate) mod demo;
pub(crate) mod evaluate;
pub(crate) mod generate;
pub(crate) mod reproduce;
pub(crate) mod run;
pub(crate) mod scorers;
pub(crate) mod settings;
pub(crate) mod study;
