//! The key tables of `docs/configuration.md` are those of the structs; `UPDATE_CONFIG_DOCS=1` writes them again.

use std::path::Path;

use vjepa_recipe::config::markdown;

const MARK: &str = "<!-- keys -->\n";

#[test]
fn the_documentation_has_the_keys_that_are_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (text, tables) = page.split_once(MARK).expect("docs/configuration.md marks where the tables begin");
    let made = format!("\n{}\n", markdown().trim_end());
    if std::env::var_os("UPDATE_CONFIG_DOCS").is_some() {
        std::fs::write(&path, format!("{text}{MARK}{made}")).unwrap();
        return;
    }
    assert!(tables == made, "run UPDATE_CONFIG_DOCS=1 cargo test -p vjepa-recipe --test reference");
}
