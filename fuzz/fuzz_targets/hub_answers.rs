//! Whatever a hub answers, it is understood or refused, and what becomes a path stays within its folder.

#![no_main]

use std::path::{Component, Path};

use hub::answers;
use libfuzzer_sys::fuzz_target;

fn stays_inside(path: &str) -> bool {
    Path::new(path).components().all(|it| matches!(it, Component::Normal(_)))
}

fuzz_target!(|answer: &[u8]| {
    let text = String::from_utf8_lossy(answer);
    if let Ok(info) = answers::info(&text) {
        assert!(answers::is_commit(&info.commit) && stays_inside(&info.commit));
        for file in info.files.iter().filter(|it| answers::is_inside(&it.path)) {
            assert!(stays_inside(&file.path), "{:?}", file.path);
        }
    }
    for listed in answers::models(&text).unwrap_or_default() {
        assert!(stays_inside(&listed.repository.id), "{:?}", listed.repository);
    }
    if let Ok(Some(commit)) = answers::last_commit(&text, "config.json") {
        assert!(answers::is_commit(&commit));
    }
    if let Some(name) = answers::etag(&text) {
        assert!(stays_inside(&name) && !name.contains(['/', '\\', '.']), "{name:?}");
    }
    if answers::is_inside(&text) {
        assert!(stays_inside(&text), "{text:?}");
    }
    let _ = answers::next_page(&text);
    let _ = answers::retry_after(&text);
    assert!(!answers::shown(&text).contains(|it: char| it.is_control()));
});
