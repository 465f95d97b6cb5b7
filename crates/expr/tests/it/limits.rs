//! Nothing in a flow file overflows a stack or keeps the planner busy for long.

use aqueduct_expr::{Expr, MAX_DEPTH, MAX_OPERATORS, MAX_SQL_BYTES};

use crate::{error, evaluate, rows};

#[test]
fn a_hundred_thousand_brackets_are_an_error() {
    let n = 30_000;
    assert!(error(&format!("{}1{}", "(".repeat(n), ")".repeat(n))).message().contains("levels deep"));
    let too_long = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(error(&too_long).message().contains(&MAX_SQL_BYTES.to_string()));
    for (open, close) in [("(", ")"), ("[", "]"), ("abs(", ")"), ("not (", ")")] {
        let deep = format!("{}1{}", open.repeat(200), close.repeat(200));
        assert!(error(&deep).message().contains("deep"), "{open}: {}", error(&deep));
    }
    error(&format!("{}1{}", "case when true then ".repeat(200), " end".repeat(200)));
}

#[test]
fn long_chains_are_an_error_and_never_a_crash() {
    for operator in
        [" + 1", " and true", "::bigint", " is null", "[1]", ".a", " || 'x'", " collate x", " -> 'x'"]
    {
        for n in [MAX_OPERATORS / 2, MAX_OPERATORS - 10, MAX_OPERATORS * 2] {
            error(&format!("id{}", operator.repeat(n)));
        }
    }
    for prefix in ["not ", "- ", "+ ", "interval ", "array "] {
        error(&format!("{}id", prefix.repeat(MAX_OPERATORS - 10)));
    }
}

#[test]
fn the_deepest_that_is_allowed_works_on_an_ordinary_stack() {
    evaluate(&format!("id{}", " + 1".repeat(MAX_DEPTH - 1)));
    evaluate(&format!("{}id{}", "abs(".repeat(MAX_DEPTH / 2 - 1), ")".repeat(MAX_DEPTH / 2 - 1)));
    evaluate(&format!("id > 0{}", " and id > 0".repeat(MAX_DEPTH - 2)));
    let case = "case when id = 2 then ".repeat(MAX_DEPTH / 4) + "id" + &" end".repeat(MAX_DEPTH / 4);
    evaluate(&case);
}

#[test]
fn long_lists_of_values_are_fine() {
    let list: Vec<_> = (0..8000).map(|n| n.to_string()).collect();
    let sql = format!("id in ({})", list.join(", "));
    let rows = rows();
    let truth = Expr::parse(&sql, &rows.schema()).unwrap().evaluate(&rows).unwrap();
    assert_eq!(arrow::array::AsArray::as_boolean(&truth).true_count(), 3);
}
