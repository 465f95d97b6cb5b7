//! How columns and functions are found, and what is said when they are not.

use std::sync::Arc;

use aqueduct_expr::{Expr, SelectItem};
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};

use crate::{error, evaluate};

#[test]
fn a_column_is_found_in_any_case() {
    for sql in ["GlobalEventID", "globaleventid", "GLOBALEVENTID", r#""GlobalEventID""#, "`GlobalEventID`"] {
        assert_eq!(evaluate(sql).as_primitive::<Int64Type>().values(), &[10, 20, 30], "{sql}");
    }
    assert_eq!(evaluate("Geo.LON").as_primitive::<Float64Type>().value(0), 2.3);
    assert!(error(r#""globaleventid""#).message().contains("nearest `GlobalEventID`"), "quotes are exact");
}

#[test]
fn the_exact_name_wins_then_lower_case_and_a_tie_is_unknown() {
    let types = [
        ("Name", DataType::Int8),
        ("name", DataType::Int16),
        ("AB", DataType::Int32),
        ("Ab", DataType::Int64),
    ];
    let fields: Vec<_> =
        types.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let data_type = |sql| Expr::parse(sql, &schema).map(|expr| expr.data_type().clone());
    assert_eq!(data_type("Name"), Ok(DataType::Int8));
    assert_eq!(data_type("NAME"), Ok(DataType::Int16));
    assert!(data_type("aB").unwrap_err().message().contains("unknown column"));
}

#[test]
fn a_name_with_odd_characters_is_a_column_by_itself_or_in_quotes() {
    let schema = Arc::new(Schema::new(vec![Field::new("eo:cloud cover", DataType::Float64, true)]));
    assert_eq!(SelectItem::parse("eo:cloud cover", &schema).unwrap().name(), "eo:cloud cover");
    assert!(Expr::parse(r#""eo:cloud cover" < 10"#, &schema).unwrap().is_boolean());
}

#[test]
fn unknown_names_come_with_the_nearest() {
    assert_eq!(error("contry = 'FR'").message(), "unknown column `contry`; nearest `country`");
    assert_eq!(error("contry = 'FR'").nearest(), Some("country"));
    assert!(error("uper(country)").message().contains("unknown function `uper`; nearest `upper`"));
    assert!(error("country = \"FR\"").message().contains("single quotes"));
    assert!(error("nothing_like_it").message().contains("there are: GlobalEventID, country"));
}

#[test]
fn what_belongs_into_another_stage_is_refused_by_name() {
    assert!(error("count(*) > 1").message().contains("`aggregate`"));
    assert!(error("sum(id)").message().contains("`aggregate`"));
    assert!(error("row_number() over (order by id)").message().contains("`sql`"));
    assert!(error("id in (select id from other)").message().contains("`sql`"));
    assert!(error("exists (select 1)").message().contains("subquery"));
    assert!(error("(select 1)").message().contains("subquery"));
    assert!(error("unnest(tags)").message().contains("`explode`"));
}

#[test]
fn broken_sql_says_where() {
    assert!(error("country = = 'FR'").message().contains("Column: 11"));
    assert!(error("id + 1 nonsense more").message().contains("end of expression"));
    assert!(error("id as x").message().contains("leave out"));
    assert!(error("'open").message().contains("nterminated"));
    assert!(error("").message().contains("empty"));
    assert!(error("country + 1 + geo").message().len() > 10);
    assert!(error("drop table x").message().len() > 10);
}
