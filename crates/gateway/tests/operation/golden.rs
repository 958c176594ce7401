//! Texts that are kept beside the tests. `TIDEGATE_BLESS=1` writes them anew.

use std::path::Path;

/// Compares a text with the file at `path`, from the root of the repository.
pub(crate) fn check(path: &str, text: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = root.join(path);
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == text,
        "{path} differs; `TIDEGATE_BLESS=1` writes it anew.\n--- kept\n{kept}\n--- now\n{text}"
    );
}
