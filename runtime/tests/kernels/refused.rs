//! What an executor refuses, and in which words.

use super::*;
use vjepa_runtime::plan::{Cpu, Executor, Params};

/// Runs a graph whose inputs are given, and returns what went wrong.
fn error(graph: &Graph, kernels: bool, inputs: Vec<(&str, HostTensor)>) -> String {
    let executor = if kernels { Executor::<Cpu>::new(graph) } else { Executor::without_kernels(graph) };
    match executor {
        Ok(mut executor) => executor.run(&mut Params::new(Default::default()), inputs).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_operation_without_a_kernel_is_named() {
    let mut graph = Graph::new("g", &[]);
    let x = graph.input("x", ty(&[2])).unwrap();
    let y = graph.cast(x, DType::I32).unwrap();
    graph.output("y", y);
    for kernels in [true, false] {
        assert_eq!(error(&graph, kernels, Vec::new()), "operation cast (node 0) has no kernel on this back end");
    }
}

/// The type rules allow indices in some operations that no kernel has for them.
#[test]
fn an_operand_of_another_type_is_named() {
    for (op, name) in [(Op::Concat { axis: 0 }, "concat"), (Op::Binary(Binary::Add), "add")] {
        let mut graph = Graph::new("g", &[]);
        let indices = TensorType::new(DType::I32, [Dim::from(2usize)]);
        let [a, b] = ["a", "b"].map(|name| graph.input(name, indices.clone()).unwrap());
        let y = graph.push1(op, &[a, b]).unwrap();
        graph.output("y", y);
        let inputs = || ["a", "b"].map(|name| (name, HostTensor::i32([2], vec![0, 1]).unwrap())).to_vec();
        assert_eq!(
            error(&graph, true, inputs()),
            format!("operation {name} (node 0): operand 0 must be f32 but is i32")
        );
        assert_eq!(
            error(&graph, false, inputs()),
            format!("operation {name} (node 0): operand 0 must be floats but is i32")
        );
    }
}

#[test]
fn a_token_out_of_range_is_named() {
    for (op, rows) in [(Op::GatherTokens, 3usize), (Op::ScatterTokens { tokens: Dim::from(3usize) }, 2)] {
        let mut graph = Graph::new("g", &[]);
        let x = graph.input("x", ty(&[1, rows, 4])).unwrap();
        let index = graph.input("i", TensorType::new(DType::I32, [1usize, 2].map(Dim::from))).unwrap();
        let y = graph.push1(op.clone(), &[x, index]).unwrap();
        graph.output("y", y);
        for token in [3, -1] {
            let x = HostTensor::f32([1, rows, 4], vec![0.0; rows * 4]).unwrap();
            let inputs = vec![("x", x), ("i", HostTensor::i32([1, 2], vec![2, token]).unwrap())];
            let wanted = format!("operation {} (node 0): token {token} is not one of the 3 there are", op.name());
            assert_eq!(error(&graph, true, inputs), wanted);
        }
    }
}

/// An executor is refused when the cap is not there; nothing runs at another speed than was asked for.
#[test]
fn an_executor_refuses_a_cap_that_is_not_there() {
    let Some(asked) = std::env::var_os("VJEPA_SIMD").filter(|asked| asked == "as-fast-as-possible") else {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .arg("an_executor_refuses_a_cap_that_is_not_there")
            .env("VJEPA_SIMD", "as-fast-as-possible")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    };
    let mut graph = Graph::new("kernel", &[]);
    let x = graph.input("x", ty(&[3])).unwrap();
    let y = graph.push1(Op::Unary(Unary::Gelu), &[x]).unwrap();
    graph.output("y", y);
    let said = Executor::<Cpu>::new(&graph).map(|_| ()).unwrap_err().to_string();
    assert!(said.contains(&*asked.to_string_lossy()) && said.contains("write one of scalar"), "{said}");
}
