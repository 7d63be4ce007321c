//! From numbers in three recordings to expressions over the symbols.

use super::TraceError;
use crate::ir::{Dim, Scalar, Sizes};
use std::cell::RefCell;
use std::collections::HashMap;

/// Sizes for three recordings: every symbol a prime of its own in each, no prime used twice.
///
/// The primes are large enough not to be mistaken for a model's constants, and drawn at random, since numbers with a pattern
/// have simple relations: with primes in order, a line through two of one symbol's sizes passes through the third far too
/// often. The draw is seeded, so a trace is the same in every process.
pub(super) fn prime_sizes(symbols: &[&str]) -> [Sizes; 3] {
    let mut primes = primes(3 * symbols.len());
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    // Fisher-Yates, with the generator of Knuth's MMIX.
    for i in (1..primes.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        primes.swap(i, ((random >> 33) % (i as u64 + 1)) as usize);
    }
    let mut primes = primes.into_iter();
    [0, 1, 2].map(|_| symbols.iter().map(|symbol| (*symbol).to_owned()).zip(primes.by_ref()).collect())
}

/// The primes from 1000 to 8191, and as many beyond as it takes for `count` of them to be one in four.
fn primes(count: usize) -> Vec<usize> {
    let is_prime = |n: &usize| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    let wanted = count.saturating_mul(4);
    let mut found: Vec<usize> = (1000..8192).filter(is_prime).collect();
    let missing = wanted.saturating_sub(found.len());
    found.extend((8192..).filter(is_prime).take(missing));
    found
}

/// Finds expressions; holds the monomials `S`, `S*T` with their values at the three sizes.
pub(super) struct Solver {
    monomials: Vec<(Dim, [i64; 3])>,
    symbols: String,
    pub(super) sizes: [Sizes; 3],
    /// Sizes that were looked for before: a model has few different ones.
    known: RefCell<HashMap<[usize; 3], Vec<Dim>>>,
}

impl Solver {
    /// A solver for `symbols` at the sizes of the three recordings.
    ///
    /// # Errors
    /// [`TraceError::Capture`] when a product of two sizes does not fit 64 bits.
    pub(super) fn new(symbols: &[&str], sizes: [Sizes; 3]) -> Result<Self, TraceError> {
        let mut dims: Vec<Dim> = symbols.iter().map(|symbol| Dim::symbol(symbol)).collect();
        let products: Vec<Dim> =
            dims.iter().enumerate().flat_map(|(i, a)| dims[i..].iter().map(move |b| a * b)).collect();
        dims.extend(products);
        let value = |dim: &Dim, set: usize| dim.eval(&sizes[set]).and_then(|n| i64::try_from(n).ok());
        let values = |dim: Dim| match [0, 1, 2].map(|set| value(&dim, set)) {
            [Some(a), Some(b), Some(c)] => Ok((dim, [a, b, c])),
            _ => Err(TraceError::Capture(format!("`{dim}` has no value at the traced sizes"))),
        };
        let monomials = dims.into_iter().map(values).collect::<Result<_, _>>()?;
        Ok(Self { monomials, symbols: symbols.join(", "), sizes, known: RefCell::default() })
    }

    /// The expression that has these values: a number, `c·M`, `c·M + d`, or `a·M + b·M'`.
    ///
    /// # Errors
    /// [`TraceError::NoExpression`] when there is none, [`TraceError::Ambiguous`] when there are several.
    pub(super) fn dim(&self, what: impl Fn() -> String, values: [usize; 3]) -> Result<Dim, TraceError> {
        if values[0] == values[1] && values[1] == values[2] {
            return Ok(Dim::from(values[0]));
        }
        let mut known = self.known.borrow_mut();
        match known.entry(values).or_insert_with(|| self.expressions(values)).as_slice() {
            [single] => Ok(single.clone()),
            [first, second, ..] => {
                Err(TraceError::Ambiguous { what: what(), first: first.to_string(), second: second.to_string() })
            }
            [] => Err(TraceError::NoExpression {
                what: what(),
                values: values.map(|value| value as f64),
                symbols: self.symbols.clone(),
            }),
        }
    }

    /// Every expression with these values, of those with one monomial, or if there is none, of those with two.
    fn expressions(&self, values: [usize; 3]) -> Vec<Dim> {
        let [Ok(a), Ok(b), Ok(c)] = values.map(i64::try_from) else { return Vec::new() };
        let v = [a, b, c];
        let lines = self.monomials.iter().filter_map(|(monomial, m)| {
            let (a, b) = line(*m, v)?;
            Some(&(monomial * &Dim::from(a)) + &Dim::from(b))
        });
        let lines: Vec<Dim> = lines.collect();
        if !lines.is_empty() {
            return lines;
        }
        let pairs = self.monomials.iter().enumerate().flat_map(|(i, first)| {
            let rest = self.monomials.get(i + 1..).unwrap_or_default();
            rest.iter().map(move |second| (first, second))
        });
        let planes = pairs.filter_map(|((first, m), (second, n))| {
            let (a, b) = plane(*m, *n, v)?;
            Some(&(first * &Dim::from(a)) + &(second * &Dim::from(b)))
        });
        planes.collect()
    }

    /// A scalar: a number, or the reciprocal of a dimension expression.
    pub(super) fn scalar(&self, what: impl Fn() -> String, values: [f64; 3]) -> Result<Scalar, TraceError> {
        if values[0] == values[1] && values[1] == values[2] {
            return Ok(Scalar::from(values[0]));
        }
        let recip = values.map(|value| 1.0 / value);
        if recip.iter().all(|r| (r - r.round()).abs() < 1e-6 * r.abs() && *r >= 1.0) {
            let dim = self.dim(&what, recip.map(|r| r.round() as usize))?;
            return Ok(Scalar::recip(dim));
        }
        Err(TraceError::NoExpression { what: what(), values, symbols: self.symbols.clone() })
    }

    /// A divisor: `x / c` as the scalar `1 / c`.
    pub(super) fn divisor(&self, what: impl Fn() -> String, values: [f64; 3]) -> Result<Scalar, TraceError> {
        if values[0] == values[1] && values[1] == values[2] {
            return Ok(Scalar::from(1.0 / values[0]));
        }
        if !values.iter().all(|value| value.fract() == 0.0 && *value >= 1.0) {
            return Err(TraceError::NoExpression { what: what(), values, symbols: self.symbols.clone() });
        }
        Ok(Scalar::recip(self.dim(&what, values.map(|value| value as usize))?))
    }
}

/// `v = a·m + b` with whole a ≠ 0 at all three sizes.
fn line(m: [i64; 3], v: [i64; 3]) -> Option<(i64, i64)> {
    let (dm, dv) = (m[1].checked_sub(m[0])?, v[1].checked_sub(v[0])?);
    if dm == 0 || dv == 0 || dv % dm != 0 {
        return None;
    }
    let a = dv / dm;
    let b = v[0].checked_sub(a.checked_mul(m[0])?)?;
    (a.checked_mul(m[2])?.checked_add(b)? == v[2]).then_some((a, b))
}

/// `v = a·m + b·n` with whole a, b ≠ 0 at all three sizes (Cramer's rule on two, check on the third).
fn plane(m: [i64; 3], n: [i64; 3], v: [i64; 3]) -> Option<(i64, i64)> {
    let wide = |x: i64, y: i64| i128::from(x) * i128::from(y);
    let det = wide(m[0], n[1]) - wide(m[1], n[0]);
    let (a, b) = (wide(v[0], n[1]) - wide(v[1], n[0]), wide(m[0], v[1]) - wide(m[1], v[0]));
    if det == 0 || a == 0 || b == 0 || a % det != 0 || b % det != 0 {
        return None;
    }
    let (a, b) = (i64::try_from(a / det).ok()?, i64::try_from(b / det).ok()?);
    (wide(a, m[2]) + wide(b, n[2]) == i128::from(v[2])).then_some((a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn solver() -> Solver {
        let symbols = ["B", "K", "L"];
        Solver::new(&symbols, prime_sizes(&symbols)).unwrap()
    }

    fn values(text: impl Fn(i64, i64, i64) -> i64) -> [usize; 3] {
        let sizes = prime_sizes(&["B", "K", "L"]);
        [0, 1, 2].map(|set| {
            let at = |symbol: &str| sizes[set][symbol] as i64;
            text(at("B"), at("K"), at("L")) as usize
        })
    }

    #[test]
    fn expressions_are_found() {
        for (expected, values) in [
            ("64", values(|_, _, _| 64)),
            ("64*B", values(|b, _, _| 64 * b)),
            ("K - 1", values(|_, k, _| k - 1)),
            ("B*K", values(|b, k, _| b * k)),
            ("L + K", values(|_, k, l| k + l)),
            ("B*L + B*K", values(|b, k, l| b * k + b * l)),
            ("3*B*L", values(|b, _, l| 3 * b * l)),
        ] {
            assert_eq!(solver().dim(|| "test".into(), values).unwrap().to_string(), expected);
        }
    }

    /// Every kind of expression over 20 symbols, each pair and triple of them, gives back itself: sizes that repeat, or
    /// depend on each other, would let another one through.
    #[test]
    fn twenty_symbols_stay_apart() {
        let names: Vec<String> = (0..20).map(|i| format!("S{i}")).collect();
        let symbols: Vec<&str> = names.iter().map(String::as_str).collect();
        let sizes = prime_sizes(&symbols);
        let all: std::collections::BTreeSet<usize> = sizes.iter().flat_map(|set| set.values().copied()).collect();
        assert_eq!(all.len(), 60, "a size is used twice");
        let solver = Solver::new(&symbols, sizes.clone()).unwrap();
        let check = |wanted: &Dim| {
            let values = [0, 1, 2].map(|set| wanted.eval(&sizes[set]).unwrap());
            let found = solver.dim(|| wanted.to_string(), values).unwrap();
            assert_eq!(found, *wanted, "from {values:?}");
        };
        let dims: Vec<Dim> = symbols.iter().map(|symbol| Dim::symbol(symbol)).collect();
        for (i, a) in dims.iter().enumerate() {
            check(&(a - &Dim::from(1usize)));
            check(&(&(a * &Dim::from(3usize)) + &Dim::from(16usize)));
            for (j, b) in dims.iter().enumerate().skip(i) {
                check(&(&(a * b) * &Dim::from(2usize)));
                check(&(&(a * b) + &Dim::from(8usize)));
                if i != j {
                    check(&(a + b));
                }
                let c = &dims[(i + j + 7) % dims.len()];
                if c != b {
                    check(&(&(a * b) + &(a * c)));
                }
            }
        }
    }

    #[test]
    fn sizes_are_different_for_any_number_of_symbols() {
        let names: Vec<String> = (0..400).map(|i| format!("S{i}")).collect();
        let symbols: Vec<&str> = names.iter().map(String::as_str).collect();
        let sizes = prime_sizes(&symbols);
        let all: std::collections::BTreeSet<usize> = sizes.iter().flat_map(|set| set.values().copied()).collect();
        assert_eq!((all.len(), sizes.clone()), (1200, prime_sizes(&symbols)));
    }

    #[test]
    fn two_expressions_with_the_same_values_are_an_error() {
        let of = |sizes: [usize; 2]| Sizes::from([("B".to_owned(), sizes[0]), ("K".to_owned(), sizes[1])]);
        let solver = Solver::new(&["B", "K"], [of([5, 5]), of([7, 7]), of([11, 11])]).unwrap();
        let error = solver.dim(|| "axis 0 of x".into(), [10, 14, 22]).unwrap_err();
        assert_eq!(error.to_string(), "axis 0 of x is 2*B and 2*K at the three traced sizes: they do not tell which");
    }

    #[test]
    fn what_is_no_expression_is_an_error() {
        let error = solver().dim(|| "axis 0 of x".into(), [7, 11, 12]).unwrap_err();
        assert!(error.to_string().starts_with("axis 0 of x is [7.0, 11.0, 12.0]"), "{error}");
    }
}
