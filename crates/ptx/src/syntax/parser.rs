//! Tokens to the syntax tree of a module.

use super::ast::{Function, Initial, Statement, Text, Variable};
use super::cursor::Cursor;
use super::lexer::{Kind, tokens};
use super::statement::{instruction, label};
use crate::fault::{LoadError, LoadProblem};

/// Deepest nesting of scopes.
const DEPTH: usize = 64;

/// Parses a module.
///
/// # Errors
///
/// Where the text is no PTX, with the line.
pub(crate) fn parse(text: &str) -> Result<Text, LoadError> {
    let mut cursor = Cursor::new(text, tokens(text)?);
    let mut module = Text::default();
    while cursor.peek().kind != Kind::End {
        top(&mut cursor, &mut module)?;
    }
    Ok(module)
}

/// One declaration of the module.
fn top(cursor: &mut Cursor, module: &mut Text) -> Result<(), LoadError> {
    let token = cursor.peek();
    if token.kind == Kind::Mark(';') {
        cursor.take();
        return Ok(());
    }
    match cursor.word()? {
        ".version" => {
            let word = cursor.take().text;
            let (major, minor) = word.split_once('.').unwrap_or((word, "0"));
            match (major.parse(), minor.parse()) {
                (Ok(major), Ok(minor)) => module.version = (major, minor),
                _ => return Err(cursor.wrong("`.version major.minor`")),
            }
        }
        ".target" => {
            module.target.push(cursor.word()?.to_string());
            while cursor.accept(',') {
                module.target.push(cursor.word()?.to_string());
            }
        }
        ".address_size" => {
            if cursor.small()? != 64 {
                let what = "`.address_size` other than 64".to_string();
                return Err(LoadError { line: token.line, problem: LoadProblem::Declaration { what } });
            }
        }
        ".file" | ".loc" => cursor.skip_line(token.line),
        ".pragma" | ".alias" => cursor.skip_statement(),
        ".section" => {
            cursor.word()?;
            cursor.skip_block()?;
        }
        ".visible" | ".weak" | ".common" => {}
        ".extern" => return external(cursor, module),
        word @ (".entry" | ".func") => {
            module.functions.extend(function(cursor, word == ".entry", token.line)?);
        }
        space @ (".global" | ".const" | ".shared") => {
            module.variables.extend(variables(cursor, &space[1..], false)?);
        }
        _ => {
            let problem = LoadProblem::Declaration { what: format!("`{}`", token.text) };
            return Err(LoadError { line: token.line, problem });
        }
    }
    Ok(())
}

/// What follows `.extern`: a variable, or a function without a body.
fn external(cursor: &mut Cursor, module: &mut Text) -> Result<(), LoadError> {
    match cursor.word()? {
        ".func" => cursor.skip_statement(),
        space => module.variables.extend(variables(cursor, space.trim_start_matches('.'), true)?),
    }
    Ok(())
}

/// A kernel or function; nothing where it is only declared.
fn function(cursor: &mut Cursor, entry: bool, line: u32) -> Result<Option<Function>, LoadError> {
    let mut directives = Vec::new();
    while cursor.peek().text.starts_with(".attribute") || cursor.peek().text == ".noreturn" {
        cursor.take();
        if cursor.accept('(') {
            cursor.skip_to(')')?;
        }
    }
    let returns = if !entry && cursor.at_mark('(') { params(cursor)? } else { Vec::new() };
    let name = cursor.word()?.to_string();
    let params = if cursor.at_mark('(') { params(cursor)? } else { Vec::new() };
    while cursor.peek().kind == Kind::Word {
        let directive = cursor.take();
        let mut numbers = Vec::new();
        while cursor.peek().kind == Kind::Number {
            numbers.push(cursor.small()?);
            cursor.accept(',');
        }
        if directive.text == ".pragma" {
            cursor.skip_statement();
        }
        directives.push((directive.text.to_string(), numbers));
    }
    if cursor.accept(';') {
        return Ok(None);
    }
    cursor.expect('{')?;
    let body = body(cursor, 0)?;
    Ok(Some(Function { line, name, entry, returns, params, directives, body }))
}

/// `( .param … , … )`
fn params(cursor: &mut Cursor) -> Result<Vec<Variable>, LoadError> {
    cursor.expect('(')?;
    let mut params = Vec::new();
    while !cursor.accept(')') {
        let space = cursor.word()?.trim_start_matches('.').to_string();
        params.push(variable(cursor, &space, false)?);
        if !cursor.at_mark(')') {
            cursor.expect(',')?;
        }
    }
    Ok(params)
}

/// Variables of one declaration, and the semicolon behind them.
fn variables(cursor: &mut Cursor, space: &str, external: bool) -> Result<Vec<Variable>, LoadError> {
    let mut found = vec![variable(cursor, space, external)?];
    while cursor.accept(',') {
        let mut next = found[0].clone();
        name_and_size(cursor, &mut next)?;
        found.push(next);
    }
    cursor.expect(';')?;
    Ok(found)
}

/// Type, name, size and initialiser of a variable.
fn variable(cursor: &mut Cursor, space: &str, external: bool) -> Result<Variable, LoadError> {
    let mut variable = Variable {
        line: cursor.peek().line,
        name: String::new(),
        space: space.split("::").next().unwrap_or(space).to_string(),
        ty: String::new(),
        align: None,
        elements: Some(1),
        initial: Vec::new(),
        external,
    };
    let mut lanes = 1;
    while cursor.peek().kind == Kind::Word && cursor.peek().text.starts_with('.') {
        match cursor.take().text {
            ".align" => {
                // In `.ptr .align`, the alignment is that of what the pointer points to.
                let align = cursor.small()?;
                if lanes != 0 {
                    variable.align = Some(align);
                }
            }
            ".ptr" => lanes = 0,
            ".attribute" => {
                cursor.expect('(')?;
                cursor.skip_to(')')?;
            }
            ".v2" => lanes = 2,
            ".v4" => lanes = 4,
            ".global" | ".const" | ".shared" | ".local" => {}
            ty => variable.ty = ty[1..].to_string(),
        }
    }
    variable.elements = Some(u64::max(lanes, 1));
    name_and_size(cursor, &mut variable)?;
    Ok(variable)
}

fn name_and_size(cursor: &mut Cursor, variable: &mut Variable) -> Result<(), LoadError> {
    variable.name = cursor.word()?.to_string();
    while cursor.accept('[') {
        variable.elements = match cursor.accept(']') {
            true => None,
            false => {
                let line = cursor.peek().line;
                let count = cursor.integer()?;
                cursor.expect(']')?;
                let product = variable.elements.and_then(|elements| elements.checked_mul(count));
                let what = "bytes of a variable";
                let problem = LoadProblem::Limit { what, limit: 1 << 32 };
                Some(product.filter(|n| *n < 1 << 32).ok_or(LoadError { line, problem })?)
            }
        };
    }
    if cursor.accept('=') {
        initialiser(cursor, &mut variable.initial, 0)?;
    }
    Ok(())
}

/// A value, an address, or a list of such in braces, in braces again for arrays of arrays.
fn initialiser(cursor: &mut Cursor, to: &mut Vec<Initial>, depth: usize) -> Result<(), LoadError> {
    if depth < DEPTH && cursor.accept('{') {
        while !cursor.accept('}') {
            initialiser(cursor, to, depth + 1)?;
            if !cursor.at_mark('}') {
                cursor.expect(',')?;
            }
        }
        return Ok(());
    }
    if cursor.peek().kind != Kind::Word {
        to.push(Initial::Number(cursor.number()?));
        return Ok(());
    }
    let generic = cursor.accept_word("generic");
    if generic {
        cursor.expect('(')?;
    }
    let name = cursor.word()?.to_string();
    if generic {
        cursor.expect(')')?;
    }
    let signed = cursor.at_mark('+') || cursor.at_mark('-');
    let offset = if signed { cursor.integer()? as i64 } else { 0 };
    to.push(Initial::Address { name, generic, offset });
    Ok(())
}

/// The statements of a body up to its closing brace.
fn body(cursor: &mut Cursor, depth: usize) -> Result<Vec<Statement>, LoadError> {
    let mut statements = Vec::new();
    loop {
        let token = cursor.peek();
        match token.kind {
            Kind::Mark('}') => {
                cursor.take();
                return Ok(statements);
            }
            Kind::Mark('{') if depth < DEPTH => {
                cursor.take();
                statements.push(Statement::Scope(body(cursor, depth + 1)?));
            }
            Kind::Mark(';') => {
                cursor.take();
            }
            Kind::Mark('@') => statements.push(instruction(cursor)?),
            Kind::Word if token.text.starts_with('.') => directive(cursor, &mut statements)?,
            Kind::Word if cursor.peek_at(1).kind == Kind::Mark(':') => statements.push(label(cursor)?),
            Kind::Word => statements.push(instruction(cursor)?),
            _ => return Err(cursor.wrong("a statement or `}`")),
        }
    }
}

/// A directive inside a body.
fn directive(cursor: &mut Cursor, statements: &mut Vec<Statement>) -> Result<(), LoadError> {
    let token = cursor.take();
    match token.text {
        ".reg" => statements.push(registers(cursor, token.line)?),
        ".loc" | ".file" => cursor.skip_line(token.line),
        ".pragma" => cursor.skip_statement(),
        space @ (".shared" | ".local" | ".param" | ".const" | ".global") => {
            let variables = variables(cursor, &space[1..], false)?;
            statements.extend(variables.into_iter().map(Statement::Variable));
        }
        _ => {
            let problem = LoadProblem::Declaration { what: format!("`{}`", token.text) };
            return Err(LoadError { line: token.line, problem });
        }
    }
    Ok(())
}

/// What follows `.reg`.
fn registers(cursor: &mut Cursor, line: u32) -> Result<Statement, LoadError> {
    let mut ty = String::new();
    while cursor.peek().kind == Kind::Word && cursor.peek().text.starts_with('.') {
        ty = cursor.take().text[1..].to_string();
    }
    let mut names = Vec::new();
    loop {
        let name = cursor.word()?.to_string();
        let count = match cursor.accept('<') {
            true => {
                let count = cursor.small()?;
                cursor.expect('>')?;
                Some(count)
            }
            false => None,
        };
        names.push((name, count));
        if !cursor.accept(',') {
            break;
        }
    }
    cursor.expect(';')?;
    Ok(Statement::Registers { line, ty, names })
}
