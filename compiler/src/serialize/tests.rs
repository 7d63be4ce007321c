use super::*;
use crate::testing::random_graph;
use proptest::prelude::*;

fn artifact(seed: u64) -> Artifact {
    let record = Record::from([("embed_dim".to_owned(), "384".to_owned()), ("device".to_owned(), "cpu".to_owned())]);
    Artifact::new(&random_graph(seed).graph, record).unwrap()
}

#[test]
fn other_bytes_are_told_apart() {
    assert!(matches!(decode(b"graph g[]"), Err(DecodeError::Protobuf(_))));
    assert_eq!(decode(&[]), Err(DecodeError::Format));
    let old = FileMessage { format: FORMAT.to_owned(), version: 1, ..FileMessage::default() };
    let error = decode(&old.encode_to_vec()).unwrap_err().to_string();
    assert_eq!(error, "a compiled graph of format 1, and this program reads format 2");
}

#[test]
fn a_plan_of_another_graph_is_refused() {
    let (mut one, other) = (artifact(1), artifact(2));
    assert_ne!(one.graph.nodes.len(), other.graph.nodes.len());
    one.plan = other.plan;
    assert!(matches!(decode(&encode(&one)), Err(DecodeError::Plan(_))));
}

#[test]
fn sizes_that_only_a_hostile_file_has_are_refused() {
    let term = |i: usize| message::TermMessage { coefficient: 1, symbols: vec![format!("s{i}")] };
    let dim = message::DimMessage { terms: (0..100_000).map(term).collect() };
    let ty = message::TypeMessage { dtype: "f32".to_owned(), shape: vec![dim] };
    let input = message::SourceMessage { name: "x".to_owned(), ty: Some(ty) };
    let file = |file: FileMessage| FileMessage { format: FORMAT.to_owned(), version: VERSION, ..file };
    let wide = file(FileMessage { inputs: vec![input], ..FileMessage::default() });
    let error = decode(&wide.encode_to_vec()).unwrap_err().to_string();
    assert!(error.contains("too complicated a shape"), "{error}");
    let symbols = (0..100_000).map(|i| format!("s{i}")).collect();
    let many = file(FileMessage { symbols, ..FileMessage::default() });
    assert!(decode(&many.encode_to_vec()).unwrap_err().to_string().contains("more than 1024 symbols"));
}

proptest! {
    #[test]
    fn artifacts_round_trip(seed in any::<u64>()) {
        let artifact = artifact(seed);
        let bytes = encode(&artifact);
        prop_assert_eq!(&decode(&bytes).unwrap(), &artifact);
        prop_assert_eq!(bytes, encode(&artifact));
    }

    /// An error, or a graph that verifies with a plan that runs it and no more of either than there are bytes.
    #[test]
    fn mutated_bytes_never_panic(
        seed in any::<u64>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..5),
    ) {
        let mut bytes = encode(&artifact(seed));
        for (place, byte, cut) in edits {
            let place = place.index(bytes.len());
            match (cut, byte) {
                (true, 0..16) if place > 0 => bytes.truncate(place),
                (true, _) if bytes.len() > 1 => { bytes.remove(place); }
                _ => bytes[place] = byte,
            }
        }
        if let Ok(Artifact { graph, plan, record }) = decode(&bytes) {
            prop_assert_eq!(verify(&graph), Ok(()));
            prop_assert_eq!(plan.check(&graph), Ok(()));
            let frees: usize = plan.steps.iter().map(|step| step.frees.len()).sum();
            prop_assert!(graph.values.len() + plan.steps.len() + frees + record.len() <= bytes.len());
        }
    }

    #[test]
    fn truncated_bytes_never_panic(seed in any::<u64>(), place in any::<prop::sample::Index>()) {
        let bytes = encode(&artifact(seed));
        let cut = place.index(bytes.len());
        // A cut between two fields leaves a shorter file: steps or the record's end are missing then.
        if let Ok(artifact) = decode(&bytes[..cut]) {
            prop_assert_eq!(artifact.plan.check(&artifact.graph), Ok(()));
        }
    }
}
