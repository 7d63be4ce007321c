use super::*;
use crate::testing::{assert_close, exact, random_graph, roots_of};
use proptest::prelude::*;

#[test]
fn unknown_names_are_told() {
    let graph = Graph::new("g", &[]);
    let error = Pipeline::standard().stopping_at("inline").run(&graph).unwrap_err().to_string();
    assert!(error.starts_with("there is no pass `inline`; the passes are clean-up, constants, cse"), "{error}");
}

#[test]
fn stopping_at_cuts_the_list_and_wrong_input_is_told() {
    let case = random_graph(5);
    let all = Pipeline::standard().run(&case.graph).unwrap();
    let one = Pipeline::standard().stopping_at("clean-up").run(&case.graph).unwrap();
    assert!(one.log.len() <= 1 && one.log.len() <= all.log.len());
    let mut broken = case.graph.clone();
    broken.nodes.pop();
    assert!(matches!(Pipeline::standard().run(&broken), Err(PassError::Input(_))));
}

proptest! {
    #[test]
    fn every_pass_keeps_what_is_computed(seed in any::<u64>()) {
        let case = random_graph(seed);
        let expected = exact(&case);
        for name in ["clean-up", "constants", "cse", "dead-code", "sink-tokens", "fuse-adamw-ema", "decompose"] {
            let pass = named(name).unwrap();
            prop_assert_eq!(pass.name(), name);
            if let Some(changed) = pass.run(&case.graph).unwrap() {
                verify(&changed.graph).unwrap();
                prop_assert!(!changed.changes.is_empty());
                assert_close(&expected, &roots_of(&changed.graph, &case.sizes, &case.sources), 1e-6);
            }
        }
        let optimised = Pipeline::standard().with_verify(true).run(&case.graph).unwrap();
        assert_close(&expected, &roots_of(&optimised.graph, &case.sizes, &case.sources), 1e-6);
        prop_assert!(optimised.graph.nodes.len() <= case.graph.nodes.len() + 20);
    }
}
