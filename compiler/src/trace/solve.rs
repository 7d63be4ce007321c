//! Numbers from three recordings to expressions over the symbols.

use super::TraceError;
use crate::ir::{Dim, Scalar, Sizes};

/// Primes large enough not to be mistaken for a model's constants, and far enough apart that no small combination of some
/// is another.
const PRIMES: [usize; 24] = [
    1009, 1223, 1511, 1801, 2203, 2609, 3011, 3413, 1039, 1259, 1559, 1867, 2287, 2677, 3089, 3511, 1087, 1301, 1613,
    1931, 2351, 2741, 3169, 3607,
];

/// Three sets of sizes for `symbols`, all different.
pub(super) fn prime_sizes(symbols: &[&str]) -> [Sizes; 3] {
    [0, 1, 2].map(|set| {
        let primes = PRIMES.iter().skip(set * 8).cycle();
        symbols.iter().zip(primes).map(|(symbol, prime)| ((*symbol).to_owned(), *prime)).collect()
    })
}

/// Finds expressions; holds the monomials `S`, `S*T` with their values at the three sizes.
pub(super) struct Solver {
    monomials: Vec<(Dim, [i64; 3])>,
    symbols: String,
    pub(super) sizes: [Sizes; 3],
}

impl Solver {
    pub(super) fn new(symbols: &[&str], sizes: [Sizes; 3]) -> Self {
        let mut dims: Vec<Dim> = symbols.iter().map(|symbol| Dim::symbol(symbol)).collect();
        let products: Vec<Dim> =
            dims.iter().enumerate().flat_map(|(i, a)| dims[i..].iter().map(move |b| a * b)).collect();
        dims.extend(products);
        let value = |dim: &Dim| [0, 1, 2].map(|set| dim.eval(&sizes[set]).map_or(0, |n| n as i64));
        let monomials = dims.iter().map(|dim| (dim.clone(), value(dim))).collect();
        Self { monomials, symbols: symbols.join(", "), sizes }
    }

    /// The expression that has these values: a number, `c·M`, `c·M + d`, or `a·M + b·M'`.
    pub(super) fn dim(&self, what: impl Fn() -> String, values: [usize; 3]) -> Result<Dim, TraceError> {
        let v = values.map(|value| value as i64);
        if v[0] == v[1] && v[1] == v[2] {
            return Ok(Dim::from(v[0]));
        }
        let none = || TraceError::NoExpression {
            what: what(),
            values: values.map(|value| value as f64),
            symbols: self.symbols.clone(),
        };
        for (monomial, m) in &self.monomials {
            if let Some((a, b)) = line(*m, v) {
                return Ok(&(monomial * &Dim::from(a)) + &Dim::from(b));
            }
        }
        for (i, (first, m)) in self.monomials.iter().enumerate() {
            for (second, n) in &self.monomials[i + 1..] {
                if let Some((a, b)) = plane(*m, *n, v) {
                    return Ok(&(first * &Dim::from(a)) + &(second * &Dim::from(b)));
                }
            }
        }
        Err(none())
    }

    /// A scalar: a number, or the reciprocal or multiple of a dimension expression.
    pub(super) fn scalar(&self, what: impl Fn() -> String, values: [f64; 3]) -> Result<Scalar, TraceError> {
        if values[0] == values[1] && values[1] == values[2] {
            return Ok(Scalar::from(values[0]));
        }
        let none = || TraceError::NoExpression { what: what(), values, symbols: self.symbols.clone() };
        let recip = values.map(|value| 1.0 / value);
        if recip.iter().all(|r| (r - r.round()).abs() < 1e-6 * r.abs() && *r >= 1.0) {
            let dim = self.dim(&what, recip.map(|r| r.round() as usize))?;
            return Ok(Scalar::recip(dim));
        }
        Err(none())
    }

    /// A divisor: `x / c` as the scalar `1 / c`.
    pub(super) fn divisor(&self, what: impl Fn() -> String, values: [f64; 3]) -> Result<Scalar, TraceError> {
        if values[0] == values[1] && values[1] == values[2] {
            return Ok(Scalar::from(1.0 / values[0]));
        }
        let whole = values.iter().all(|value| value.fract() == 0.0 && *value >= 1.0);
        let none = || TraceError::NoExpression { what: what(), values, symbols: self.symbols.clone() };
        if !whole {
            return Err(none());
        }
        Ok(Scalar::recip(self.dim(&what, values.map(|value| value as usize))?))
    }
}

/// `v = a·m + b` with whole a ≠ 0 at all three sizes.
fn line(m: [i64; 3], v: [i64; 3]) -> Option<(i64, i64)> {
    let (dm, dv) = (m[1] - m[0], v[1] - v[0]);
    if dm == 0 || dv == 0 || dv % dm != 0 {
        return None;
    }
    let a = dv / dm;
    let b = v[0] - a * m[0];
    (a * m[2] + b == v[2]).then_some((a, b))
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
        Solver::new(&symbols, prime_sizes(&symbols))
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

    #[test]
    fn what_is_no_expression_is_an_error() {
        let error = solver().dim(|| "axis 0 of x".into(), [7, 11, 12]).unwrap_err();
        assert!(error.to_string().starts_with("axis 0 of x is [7.0, 11.0, 12.0]"), "{error}");
    }
}
