//! Text into an expression of DataFusion's parser, within limits: a flow file must not be able to overflow
//! a stack or to keep the planner busy for minutes.

use arrow::datatypes::Schema;
use datafusion_sql::parser::DFParserBuilder;
use datafusion_sql::sqlparser::ast::ExprWithAlias;
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::ExprError;
use crate::functions::Functions;

/// The bytes of an expression's text at most. Larger, and one flow file could cost seconds to plan.
pub const MAX_SQL_BYTES: usize = 64 * 1024;

/// The operators and key words of an expression at most: a chain of them is as deep as it is long, and the
/// planner goes down it. List a thousand values in `IN (…)` instead: values are not counted.
pub const MAX_OPERATORS: usize = 2048;

/// How deep brackets, calls and operators may nest. Deeper, and evaluation could overflow a worker's stack.
pub const MAX_DEPTH: usize = 128;

/// The expression, its alias if it has one, with columns under their real names.
pub(crate) fn parse(sql: &str, schema: &Schema, functions: &Functions) -> Result<ExprWithAlias, ExprError> {
    if sql.len() > MAX_SQL_BYTES {
        let message = format!("the expression has {} bytes, at most {MAX_SQL_BYTES} are read", sql.len());
        return Err(ExprError::new(message));
    }
    if sql.trim().is_empty() {
        return Err(ExprError::new("the expression is empty; write SQL such as `score > 0.5`"));
    }
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|error| ExprError::new(error.to_string()))?;
    check_operators(&tokens)?;
    check_brackets(&tokens)?;
    let mut parser =
        DFParserBuilder::new(tokens).with_dialect(&dialect).with_recursion_limit(MAX_DEPTH).build()?;
    let mut parsed = parser.parse_into_expr()?;
    crate::names::resolve(&mut parsed.expr, schema, functions)?;
    Ok(parsed)
}

fn check_operators(tokens: &[TokenWithSpan]) -> Result<(), ExprError> {
    let n_operators = tokens.iter().filter(|token| is_operator(&token.token)).count();
    if n_operators <= MAX_OPERATORS {
        return Ok(());
    }
    let message = format!("the expression has {n_operators} operators, at most {MAX_OPERATORS} are planned");
    Err(ExprError::new(message).hint("split it over several stages, or write `IN (…)`"))
}

/// Everything that can make a tree deeper: not values, names, commas, or brackets, which are checked apart.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword && word.keyword != Keyword::NULL,
        Token::Number(..) | Token::SingleQuotedString(_) | Token::Whitespace(_) | Token::Comma => false,
        Token::LParen | Token::RParen => false,
        _ => true,
    }
}

fn check_brackets(tokens: &[TokenWithSpan]) -> Result<(), ExprError> {
    let mut depth = 0_usize;
    for token in tokens {
        match token.token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
    }
    Ok(())
}

pub(crate) fn too_deep() -> ExprError {
    ExprError::new(format!("the expression nests more than {MAX_DEPTH} levels deep"))
        .hint("split it over several stages, or write `IN (…)`")
}
