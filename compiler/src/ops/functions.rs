//! The elementwise functions: names, and what they compute.

/// Elementwise functions of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Unary {
    Neg,
    Abs,
    /// −1, 0 or 1.
    Sign,
    Exp,
    Log,
    Sqrt,
    Recip,
    Tanh,
    Sin,
    Cos,
    Erf,
    Relu,
    /// 1 where x > 0, else 0.
    Step,
    /// Exact GELU, `x·Φ(x)`.
    Gelu,
}

/// Elementwise functions of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
}

/// `ALL` and `name` from one table, which must name every variant to compile.
macro_rules! names {
    ($functions:ident: $($variant:ident $name:literal)*) => {
        impl $functions {
            /// Every function, in the order of the enumeration.
            pub const ALL: [$functions; [$($name),*].len()] = [$($functions::$variant),*];

            /// Name in the text form.
            pub fn name(self) -> &'static str {
                match self {
                    $($functions::$variant => $name,)*
                }
            }
        }
    };
}

names! { Unary:
    Neg "neg"
    Abs "abs"
    Sign "sign"
    Exp "exp"
    Log "log"
    Sqrt "sqrt"
    Recip "recip"
    Tanh "tanh"
    Sin "sin"
    Cos "cos"
    Erf "erf"
    Relu "relu"
    Step "step"
    Gelu "gelu"
}

names! { Binary:
    Add "add"
    Sub "sub"
    Mul "mul"
    Div "div"
    Min "min"
    Max "max"
}

impl Unary {
    /// The function itself.
    pub(crate) fn apply(self, x: f64) -> f64 {
        match self {
            Unary::Neg => -x,
            Unary::Abs => x.abs(),
            Unary::Sign if x == 0.0 || x.is_nan() => x,
            Unary::Sign => x.signum(),
            Unary::Exp => x.exp(),
            Unary::Log => x.ln(),
            Unary::Sqrt => x.sqrt(),
            Unary::Recip => x.recip(),
            Unary::Tanh => x.tanh(),
            Unary::Sin => libm::sin(x),
            Unary::Cos => libm::cos(x),
            Unary::Erf => libm::erf(x),
            Unary::Relu if x.is_nan() => x,
            Unary::Relu => x.max(0.0),
            Unary::Step => f64::from(x > 0.0),
            Unary::Gelu => x * normal_cdf(x),
        }
    }
}

impl Binary {
    /// The function itself; `min` and `max` pass NaN on, as PyTorch does.
    pub(crate) fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Min | Binary::Max if a.is_nan() || b.is_nan() => f64::NAN,
            Binary::Min => a.min(b),
            Binary::Max => a.max(b),
        }
    }
}

/// Φ(x), the normal distribution function.
fn normal_cdf(x: f64) -> f64 {
    0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// Derivative of the exact GELU: `Φ(x) + x·φ(x)`.
pub(crate) fn gelu_slope(x: f64) -> f64 {
    let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    normal_cdf(x) + x * density
}
