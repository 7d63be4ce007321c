//! The same table of features in every format, and Parquet files of other programs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vjepa_weights::rows::{Column, Place, Rows, RowsFile};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rows")
}

/// Three rows of two videos, in several parts; the second video has no time.
fn table(out: &Path) {
    let mut rows = Rows::open(out, vec![Column { name: "features".into(), shape: vec![2, 3] }], "record").unwrap();
    for (row, (video, window, time)) in [(0, 0, 0.0), (0, 1, 0.5), (1, 0, f64::NAN)].into_iter().enumerate() {
        let values: Vec<f32> = (0..6).map(|at| (row * 10 + at) as f32 / 7.0).collect();
        rows.add(Place { video, window, time }, &[Cow::Owned(values)]).unwrap();
        rows.keep().unwrap();
    }
    let paths = ["a, \"b\".mp4", "ü.webm"].map(PathBuf::from);
    rows.finish(&paths, &BTreeMap::from([("vjepa.encoder".to_owned(), "encoder".to_owned())])).unwrap();
}

#[test]
fn every_format_reads_as_the_same_table() {
    let scratch = tempfile::tempdir().unwrap();
    let [first, others @ ..] = ["safetensors", "npy", "parquet"].map(|ending| {
        let out = scratch.path().join("table").with_extension(ending);
        table(&out);
        RowsFile::read(&out, None).unwrap()
    });
    for other in others {
        assert_eq!((&other.paths, &other.column, &other.shape), (&first.paths, &first.column, &first.shape));
        let bits = |table: &RowsFile| table.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&other), bits(&first));
        let places = |table: &RowsFile| {
            table.places.iter().map(|place| (place.video, place.window, place.time.to_bits())).collect::<Vec<_>>()
        };
        assert_eq!(places(&other), places(&first));
        // NumPy's format has no place for what a table says of itself.
        assert!(other.metadata == first.metadata || other.metadata.is_empty());
    }
}

#[test]
fn the_corpus_is_what_the_code_makes() {
    let scratch = tempfile::tempdir().unwrap();
    let (made, kept) = (scratch.path().join("plain.parquet"), folder().join("plain.parquet"));
    table(&made);
    if std::env::var_os("UPDATE_CORPUS").is_some() {
        std::fs::copy(&made, &kept).unwrap();
    }
    assert_eq!(std::fs::read(made).unwrap(), std::fs::read(kept).unwrap());
}

/// `tests/rows/make.py` wrote them, by pyarrow.
#[test]
fn tables_of_other_programs_are_refused_with_the_reason() {
    for (name, why) in [
        ("refused-optional", "has a column `path` that may be empty or is of another kind"),
        ("refused-compressed", "is compressed"),
        ("refused-dictionary", "keeps column `path` in dictionaries or several pages"),
    ] {
        let error = RowsFile::read(&folder().join(format!("{name}.parquet")), None).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("or .safetensors") && error.contains(name), "{error}");
    }
    let scratch = tempfile::tempdir().unwrap();
    let text = scratch.path().join("text.parquet");
    for bytes in [&b"x"[..], b"PAR1", b"not a table at all", b"PAR1\0\0\0\0PAR1", b"PAR1\xFF\xFF\0\0PAR1"] {
        std::fs::write(&text, bytes).unwrap();
        let error = RowsFile::read(&text, None).unwrap_err().to_string();
        assert!(error.contains("no Parquet file") || error.contains("is damaged or cut off"), "{error}");
    }
    let column = RowsFile::read(&folder().join("plain.parquet"), Some("other")).unwrap_err().to_string();
    assert!(column.contains("holds features: choose one with --column"), "{column}");
}
