//! SQL expressions over a batch, from DataFusion's expression crates: parsed and typed once against a schema,
//! evaluated batch by batch. Knows nothing of plans, sources or sinks.
//!
//! ```
//! use std::sync::Arc;
//! use aqueduct_expr::{Expr, SelectItem};
//! use arrow::datatypes::{DataType, Field, Schema};
//!
//! let schema = Arc::new(Schema::new(vec![
//!     Field::new("country", DataType::Utf8, true),
//!     Field::new("score", DataType::Float64, true),
//! ]));
//! let filter = Expr::parse("country = 'FR' AND score > 0.5", &schema)?;
//! assert!(filter.is_boolean());
//!
//! let item = SelectItem::parse("score * 2 AS double", &schema)?;
//! assert_eq!(item.field().name(), "double");
//!
//! let wrong = Expr::parse("contry = 'FR'", &schema).unwrap_err();
//! assert!(wrong.message().contains("nearest `country`"));
//! # Ok::<(), aqueduct_expr::ExprError>(())
//! ```
//!
//! The dialect is DataFusion's SQL. Column names are matched exactly first, then as SQL does in lower case,
//! then in any case if only one column fits; a name in double quotes is matched exactly. Text that comes out
//! is `Utf8`, never a view type, so that schemas downstream are plain.

mod error;
mod expr;
mod functions;
mod grouping;
mod names;
mod parse;
mod plan;

pub use error::ExprError;
pub use expr::{Expr, SelectItem};
pub use grouping::{Grouping, GroupingError, GroupingPart};
pub use parse::{MAX_DEPTH, MAX_OPERATORS, MAX_SQL_BYTES};
pub use plan::on_deep_stack;
