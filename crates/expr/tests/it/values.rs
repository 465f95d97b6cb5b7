//! Values and types of expressions.

use aqueduct_expr::{Expr, SelectItem};
use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType};
use chrono::{DateTime, Utc};

use crate::{evaluate, rows};

#[test]
fn conditions_and_arithmetic() {
    let truth = evaluate("country IN ('FR', 'DE') AND score > 0.1");
    let truth: Vec<_> = truth.as_boolean().iter().collect();
    assert_eq!(truth, [Some(true), None, None]);
    let double = evaluate("score * 2");
    assert_eq!(double.as_primitive::<Float64Type>(), &[Some(1.0), None, Some(4.0)].into_iter().collect());
    assert_eq!(evaluate("id + 1").as_primitive::<Int64Type>().values(), &[2, 3, 4]);
}

#[test]
fn null_stays_unknown_under_not() {
    let truth = evaluate("not (country in ('FR') and country in ('DE'))");
    let truth: Vec<_> = truth.as_boolean().iter().collect();
    assert_eq!(truth, [Some(true), Some(true), None]);
    let truth = evaluate("not (score <> score)");
    assert_eq!(truth.as_boolean().iter().collect::<Vec<_>>(), [Some(true), None, Some(true)]);
}

#[test]
fn a_constant_is_there_for_every_row() {
    assert_eq!(evaluate("'x'").as_string::<i32>(), &StringArray::from(vec!["x"; 3]));
    assert_eq!(evaluate("1 + 1").as_primitive::<Int64Type>(), &Int64Array::from(vec![2; 3]));
}

#[test]
fn text_is_plain_whatever_a_function_makes() {
    for sql in [
        "upper(country) || '/' || id",
        "substr(country, 1, 1)",
        "cast(id as string)",
        "arrow_cast(country, 'Utf8View')",
        "split_part(country, 'R', 1)",
        "regexp_replace(country, 'R', 'r')",
        "concat(country, 'x')",
        "lpad(country, 5, '0')",
        "to_char(timestamp '2026-01-02 03:04:05', '%Y')",
        "encode(country, 'hex')",
        "md5(country)",
    ] {
        assert_eq!(evaluate(sql).data_type(), &DataType::Utf8, "{sql}");
    }
    let nested = evaluate("make_array(arrow_cast(country, 'Utf8View'))");
    assert!(matches!(nested.data_type(), DataType::List(item) if item.data_type() == &DataType::Utf8));
}

#[test]
fn functions_of_every_package() {
    for sql in [
        "date_trunc('hour', timestamp '2026-01-02 03:04:05')",
        "extract(year from timestamp '2026-01-02 03:04:05')",
        "date_part('month', date '2026-01-02')",
        "position('R' in country)",
        "substring(country from 1 for 1)",
        "trim(both 'F' from country)",
        "overlay(country placing 'x' from 1)",
        "abs(score) + round(score, 1) + power(score, 2)",
        "country ~ '^F' or country like 'D%' or country similar to 'F.'",
        "coalesce(country, 'none') = 'none'",
        "case when score > 1 then 'high' when score is null then 'none' else 'low' end",
        "case country when 'FR' then 1 else 0 end",
        "id between 1 and 2 and not (score is distinct from 0.5)",
        "array_length(tags)",
        "tags[1]",
        "array_has(tags, 2)",
        "geo['lat']",
        "named_struct('a', id)",
        "cast('2026-01-02T03:04:05Z' as timestamp) + interval '1 day'",
        "to_timestamp('2026-01-02T03:04:05Z') at time zone 'Europe/Paris'",
        "try_cast(country as int)",
        "sha256(country)",
        "random() < 2",
    ] {
        evaluate(sql);
    }
    assert_eq!(evaluate("array_length(tags)").as_primitive::<arrow::datatypes::UInt64Type>().value(0), 2);
    assert_eq!(evaluate("geo.lat").as_primitive::<Float64Type>().value(1), 52.5);
}

#[test]
fn now_is_told_by_the_caller_for_each_batch() {
    let rows = rows();
    let expr = Expr::parse("now()", &rows.schema()).unwrap();
    for text in ["2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"] {
        let now: DateTime<Utc> = text.parse().unwrap();
        let values = expr.evaluate_at(&rows, now).unwrap();
        assert_eq!(values.data_type(), expr.data_type());
        let nanos = values.as_primitive::<TimestampNanosecondType>().value(0);
        assert_eq!(nanos, now.timestamp_nanos_opt().unwrap());
    }
    let young =
        Expr::parse("timestamp '2026-06-01 00:00:00' > now() - interval '1 day'", &rows.schema()).unwrap();
    let at = |text: &str| young.evaluate_at(&rows, text.parse().unwrap()).unwrap().as_boolean().value(0);
    assert!(at("2026-06-01T12:00:00Z") && !at("2026-06-03T00:00:00Z"));
    assert!(Expr::parse("current_date() >= date '2026-01-01'", &rows.schema()).unwrap().is_boolean());
}

#[test]
fn random_differs_by_row() {
    let values = evaluate("random()");
    let values = values.as_primitive::<Float64Type>();
    assert_ne!(values.value(0), values.value(1));
}

#[test]
fn a_value_that_cannot_be_computed_is_an_error() {
    let rows = rows();
    for sql in ["cast(country as int)", "10 / (id - 1)"] {
        let expr = Expr::parse(sql, &rows.schema()).unwrap();
        let error = expr.evaluate(&rows).unwrap_err();
        assert_eq!(error.kind(), aqueduct_core::ErrorKind::Data);
        assert_eq!(error.context("expression"), Some(sql));
    }
}

#[test]
fn no_rows_give_no_values() {
    let none = RecordBatch::new_empty(rows().schema());
    let expr = Expr::parse("upper(country)", &none.schema()).unwrap();
    assert_eq!(expr.evaluate(&none).unwrap().len(), 0);
}

#[test]
fn columns_are_named_by_alias_by_column_or_by_text() {
    let schema = rows().schema();
    let name = |sql: &str| SelectItem::parse(sql, &schema).unwrap().name().to_owned();
    assert_eq!(name("score * 2 as double"), "double");
    assert_eq!(name(r#"id AS "The ID""#), "The ID");
    assert_eq!(name("COUNTRY"), "country");
    assert_eq!(name("globaleventid"), "GlobalEventID");
    assert_eq!(name(" score * 2 "), "score * 2");
    let field = SelectItem::parse("id", &schema).unwrap().field();
    assert_eq!(&field, schema.field_with_name("id").unwrap());
}
