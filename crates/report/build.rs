//! Finds the commit this is built from.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Git is asked for this file, so that a copy of the sources inside another repository has no commit.
    let known = git(&["ls-files", "--error-unmatch", "build.rs"]).is_some();
    let Some(commit) = git(&["rev-parse", "HEAD"]).filter(|_| known) else { return };
    println!("cargo::rustc-env=VJEPA_COMMIT={commit}");
    // `HEAD` changes with the branch, the branch's file and the log with each commit.
    for name in ["HEAD", "logs/HEAD"] {
        let Some(path) = git(&["rev-parse", "--git-path", name]) else { continue };
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// What git prints; none where there is no git, or no repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned())
}
