//! Work on files of strangers by crates that panic on some of them.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is an answer, so that nobody has to read of it.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Does the work; a panic in it becomes an error with its message, and prints nothing.
///
/// What the work has changed by then is the caller's to throw away. Aborts (a failed allocation, a stack that is too
/// small) are no panics: what could lead to them has to be looked at before.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !CONTAINED.get() {
                usual(panic);
            }
        }));
    });
    let outside = CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(outside);
    result.map_err(|it| message(it.as_ref()))
}

/// The first line of what a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it says nothing");
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message_and_the_thread_goes_on() {
        assert_eq!(contained(|| 3), Ok(3));
        let empty: [u8; 0] = [];
        let place = empty.len() + 7;
        assert_eq!(contained(|| panic!("at {place}\nand more")), Err::<(), _>("at 7".to_owned()));
        assert_eq!(contained(|| contained(|| panic!("inside"))), Ok(Err::<(), _>("inside".to_owned())));
        assert_eq!(contained(|| 4), Ok(4));
    }
}
