//! Random expressions over random rows, against arithmetic done row by row.

use std::sync::Arc;

use aqueduct_expr::Expr;
use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use proptest::prelude::*;

/// An integer expression, as SQL and as a function of a row.
#[derive(Clone, Debug)]
enum Number {
    A,
    B,
    Constant(i8),
    Plus(Box<Number>, Box<Number>),
    Minus(Box<Number>, Box<Number>),
    Coalesce(Box<Number>, Box<Number>),
    Case(Box<Truth>, Box<Number>, Box<Number>),
}

/// A condition of SQL, with three values.
#[derive(Clone, Debug)]
enum Truth {
    Less(Number, Number),
    IsNull(Number),
    In(Number, Vec<i8>),
    And(Box<Truth>, Box<Truth>),
    Or(Box<Truth>, Box<Truth>),
    Not(Box<Truth>),
}

type Row = (Option<i64>, Option<i64>);

impl Number {
    fn sql(&self) -> String {
        match self {
            Self::A => "a".into(),
            Self::B => "B".into(),
            Self::Constant(n) => format!("({n})"),
            Self::Plus(l, r) => format!("({} + {})", l.sql(), r.sql()),
            Self::Minus(l, r) => format!("({} - {})", l.sql(), r.sql()),
            Self::Coalesce(l, r) => format!("coalesce({}, {})", l.sql(), r.sql()),
            Self::Case(t, l, r) => format!("case when {} then {} else {} end", t.sql(), l.sql(), r.sql()),
        }
    }

    fn of(&self, row: Row) -> Option<i64> {
        match self {
            Self::A => row.0,
            Self::B => row.1,
            Self::Constant(n) => Some(i64::from(*n)),
            Self::Plus(l, r) => Some(l.of(row)? + r.of(row)?),
            Self::Minus(l, r) => Some(l.of(row)? - r.of(row)?),
            Self::Coalesce(l, r) => l.of(row).or_else(|| r.of(row)),
            Self::Case(t, l, r) => {
                if t.of(row) == Some(true) {
                    l.of(row)
                } else {
                    r.of(row)
                }
            }
        }
    }
}

impl Truth {
    fn sql(&self) -> String {
        match self {
            Self::Less(l, r) => format!("({} < {})", l.sql(), r.sql()),
            Self::IsNull(n) => format!("({} is null)", n.sql()),
            Self::In(n, list) => {
                let list: Vec<_> = list.iter().map(i8::to_string).collect();
                format!("({} in ({}))", n.sql(), list.join(", "))
            }
            Self::And(l, r) => format!("({} and {})", l.sql(), r.sql()),
            Self::Or(l, r) => format!("({} or {})", l.sql(), r.sql()),
            Self::Not(t) => format!("(not {})", t.sql()),
        }
    }

    fn of(&self, row: Row) -> Option<bool> {
        match self {
            Self::Less(l, r) => Some(l.of(row)? < r.of(row)?),
            Self::IsNull(n) => Some(n.of(row).is_none()),
            Self::In(n, list) => n.of(row).map(|n| list.iter().any(|one| i64::from(*one) == n)),
            Self::And(l, r) => match (l.of(row), r.of(row)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(l, r) => match (l.of(row), r.of(row)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Self::Not(t) => t.of(row).map(|truth| !truth),
        }
    }
}

fn number() -> impl Strategy<Value = Number> + Clone {
    let leaf = prop_oneof![Just(Number::A), Just(Number::B), any::<i8>().prop_map(Number::Constant)];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let two = (inner.clone(), inner.clone()).prop_map(|(l, r)| (Box::new(l), Box::new(r)));
        prop_oneof![
            two.clone().prop_map(|(l, r)| Number::Plus(l, r)),
            two.clone().prop_map(|(l, r)| Number::Minus(l, r)),
            two.clone().prop_map(|(l, r)| Number::Coalesce(l, r)),
            (truth_of(inner), two).prop_map(|(t, (l, r))| Number::Case(Box::new(t), l, r)),
        ]
    })
}

fn truth_of(number: impl Strategy<Value = Number> + Clone + 'static) -> impl Strategy<Value = Truth> {
    let leaf = prop_oneof![
        (number.clone(), number.clone()).prop_map(|(l, r)| Truth::Less(l, r)),
        number.clone().prop_map(Truth::IsNull),
        (number, prop::collection::vec(any::<i8>(), 1..5)).prop_map(|(n, list)| Truth::In(n, list)),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        let two = (inner.clone(), inner.clone()).prop_map(|(l, r)| (Box::new(l), Box::new(r)));
        prop_oneof![
            two.clone().prop_map(|(l, r)| Truth::And(l, r)),
            two.prop_map(|(l, r)| Truth::Or(l, r)),
            inner.prop_map(|t| Truth::Not(Box::new(t))),
        ]
    })
}

fn batch(rows: &[Row]) -> RecordBatch {
    let a: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
    let b: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>());
    RecordBatch::try_from_iter_with_nullable([("a", a, true), ("B", b, true)]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn expressions_say_what_a_row_by_row_oracle_says(
        number in number(),
        truth in truth_of(number()),
        rows in prop::collection::vec((prop::option::of(-100_i64..100), prop::option::of(-100_i64..100)), 0..30),
    ) {
        let batch = batch(&rows);
        let values = Expr::parse(&number.sql(), &batch.schema()).unwrap().evaluate(&batch).unwrap();
        let expected: Int64Array = rows.iter().map(|row| number.of(*row)).collect();
        prop_assert_eq!(values.as_primitive::<arrow::datatypes::Int64Type>(), &expected, "{}", number.sql());

        let condition = Expr::parse(&truth.sql(), &batch.schema()).unwrap();
        prop_assert!(condition.is_boolean());
        let values = condition.evaluate(&batch).unwrap();
        let expected: BooleanArray = rows.iter().map(|row| truth.of(*row)).collect();
        prop_assert_eq!(values.as_boolean(), &expected, "{}", truth.sql());
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z0-9()'\"+*/<>=., \\[\\]{}:;@$%-]{0,60}") {
        let batch = batch(&[]);
        let _ = Expr::parse(&text, &batch.schema());
    }
}
