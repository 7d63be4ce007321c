//! Symbolic dimensions: integer polynomials over named sizes such as `B*N_ctx0 + 8`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Mul, Sub};

/// The sizes a graph is run with: symbol name to value.
pub type Sizes = BTreeMap<String, usize>;

/// One dimension of a tensor: a polynomial with integer coefficients over symbols.
///
/// Terms are kept sorted by monomial and never have a zero coefficient, so equal polynomials are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dim {
    terms: BTreeMap<Vec<String>, i64>,
}

impl Dim {
    /// The dimension named `symbol`.
    pub fn symbol(symbol: &str) -> Self {
        Self { terms: BTreeMap::from([(vec![symbol.to_owned()], 1)]) }
    }

    /// The number, when no symbol is left.
    pub fn as_const(&self) -> Option<i64> {
        match self.terms.len() {
            0 => Some(0),
            1 => self.terms.get(&Vec::new()).copied(),
            _ => None,
        }
    }

    /// True for the constant 1.
    pub fn is_one(&self) -> bool {
        self.as_const() == Some(1)
    }

    /// The value under `sizes`; `None` when a symbol has no size or the value is negative or overflows.
    pub fn eval(&self, sizes: &Sizes) -> Option<usize> {
        let mut sum: i64 = 0;
        for (monomial, coefficient) in &self.terms {
            let mut product = *coefficient;
            for symbol in monomial {
                product = product.checked_mul(i64::try_from(*sizes.get(symbol)?).ok()?)?;
            }
            sum = sum.checked_add(product)?;
        }
        usize::try_from(sum).ok()
    }

    /// The symbols that occur, without repetition.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        let mut seen: Vec<&str> = self.terms.keys().flatten().map(String::as_str).collect();
        seen.sort_unstable();
        seen.dedup();
        seen.into_iter()
    }

    /// The product of several dimensions (1 when there are none).
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Dim::from(1usize), |product, dim| &product * dim)
    }

    /// The terms: `(symbols multiplied, coefficient)`, symbols sorted.
    pub fn terms(&self) -> impl Iterator<Item = (&[String], i64)> {
        self.terms.iter().map(|(monomial, coefficient)| (monomial.as_slice(), *coefficient))
    }

    /// The sum of `terms`, each a coefficient and the symbols it multiplies.
    pub fn from_terms(terms: impl IntoIterator<Item = (Vec<String>, i64)>) -> Self {
        let mut dim = Dim::default();
        for (mut monomial, coefficient) in terms {
            monomial.sort_unstable();
            dim.insert(monomial, coefficient);
        }
        dim
    }

    fn insert(&mut self, monomial: Vec<String>, coefficient: i64) {
        let entry = self.terms.entry(monomial).or_insert(0);
        *entry = entry.wrapping_add(coefficient);
        self.terms.retain(|_, c| *c != 0);
    }
}

impl From<i64> for Dim {
    fn from(value: i64) -> Self {
        let mut dim = Dim::default();
        dim.insert(Vec::new(), value);
        dim
    }
}

impl From<usize> for Dim {
    fn from(value: usize) -> Self {
        Dim::from(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl Add for &Dim {
    type Output = Dim;
    fn add(self, other: &Dim) -> Dim {
        let mut sum = self.clone();
        for (monomial, coefficient) in &other.terms {
            sum.insert(monomial.clone(), *coefficient);
        }
        sum
    }
}

impl Sub for &Dim {
    type Output = Dim;
    fn sub(self, other: &Dim) -> Dim {
        let mut difference = self.clone();
        for (monomial, coefficient) in &other.terms {
            difference.insert(monomial.clone(), coefficient.wrapping_neg());
        }
        difference
    }
}

impl Mul for &Dim {
    type Output = Dim;
    fn mul(self, other: &Dim) -> Dim {
        let mut product = Dim::default();
        for (left, a) in &self.terms {
            for (right, b) in &other.terms {
                let mut monomial = [left.as_slice(), right.as_slice()].concat();
                monomial.sort_unstable();
                product.insert(monomial, a.wrapping_mul(*b));
            }
        }
        product
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return write!(f, "0");
        }
        // Symbols first, the constant last: `N - 1`, not `-1 + N`.
        for (position, (monomial, coefficient)) in self.terms.iter().rev().enumerate() {
            match (position, *coefficient < 0) {
                (0, true) => write!(f, "-")?,
                (0, false) => {}
                (_, true) => write!(f, " - ")?,
                (_, false) => write!(f, " + ")?,
            }
            let magnitude = coefficient.unsigned_abs();
            if monomial.is_empty() {
                write!(f, "{magnitude}")?;
            } else if magnitude == 1 {
                write!(f, "{}", monomial.join("*"))?;
            } else {
                write!(f, "{magnitude}*{}", monomial.join("*"))?;
            }
        }
        Ok(())
    }
}

/// A scalar attribute: `value / over`, so that a mean over a symbolic size stays exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// The numerator.
    pub value: f64,
    /// The denominator, 1 for plain numbers.
    pub over: Dim,
}

impl Scalar {
    /// The number under `sizes`; `None` when a symbol of the denominator has no size or it is zero.
    pub fn eval(&self, sizes: &Sizes) -> Option<f64> {
        match self.over.eval(sizes)? {
            0 => None,
            over => Some(self.value / over as f64),
        }
    }

    /// `1 / over`.
    pub fn recip(over: Dim) -> Self {
        Self { value: 1.0, over }
    }
}

impl From<f64> for Scalar {
    fn from(value: f64) -> Self {
        Self { value, over: Dim::from(1usize) }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `{:?}` prints the shortest digits that read back to the same bits.
        if self.over.is_one() { write!(f, "{:?}", self.value) } else { write!(f, "{:?}/({})", self.value, self.over) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_canonical() {
        let (b, n) = (Dim::symbol("B"), Dim::symbol("N"));
        assert_eq!(&b * &n, &n * &b);
        assert_eq!(&(&b + &n) - &n, b);
        let dim = &(&(&b * &n) + &Dim::from(8usize)) - &Dim::from(9usize);
        assert_eq!(dim.to_string(), "B*N - 1");
        assert_eq!(dim.eval(&Sizes::from([("B".into(), 2), ("N".into(), 3)])), Some(5));
        assert_eq!(dim.eval(&Sizes::new()), None);
    }
}
