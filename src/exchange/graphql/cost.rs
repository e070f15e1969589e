//! What a query costs: how deep it is, or how much it asks for, by the prices of its fields.
//!
//! Nesting is bounded through fragments as well, a fragment is reckoned once for each set of prices it may meet, one that
//! contains itself is refused, and so is a query in which more selections must be looked at than [`STEPS_MAX`].
//! Types are known as far as the query says them: of an operation, and of a fragment.

use std::collections::{BTreeMap, BTreeSet};

use apollo_parser::cst::{
    Argument, CstNode as _, Definition, Document, Field, FragmentDefinition, OperationDefinition, Selection,
    SelectionSet, TypeCondition, Value as Written,
};
use serde_json::Value;

/// Selections that are looked at for one query.
const STEPS_MAX: usize = 50_000;
/// Levels that are gone down, of fields and fragments together.
const LEVELS_MAX: usize = 128;
/// More than any limit admits.
const COST_MAX: f64 = u32::MAX as f64;

/// How a cost is reckoned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// How many fields stand in one another.
    #[default]
    Depth,
    /// All fields: of each its price, and what stands in it as often as it is asked for.
    Complexity,
    /// The fields alone that say how many they ask for, each as often as it is resolved.
    Quantifiers,
}

/// The price of a field, or of whatever is of a type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Price {
    pub add: Option<f64>,
    pub multiply: Option<f64>,
    /// Arguments whose values are added, and those that multiply.
    pub add_arguments: Vec<String>,
    pub multiply_arguments: Vec<String>,
}

/// Prices by paths such as `Query.products.reviews`, which begin with a type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prices {
    price: Option<Price>,
    below: BTreeMap<String, Self>,
}

impl Prices {
    /// Sets the price of a path; the one that was there before goes.
    pub fn set(&mut self, path: &str, price: Price) {
        let place = path.split('.').fold(self, |at, name| at.below.entry(name.to_owned()).or_default());
        place.price = Some(price);
    }
}

/// Why there is no cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpriced {
    /// A fragment that contains itself, or one that is not there.
    Fragment,
    /// Too many levels, or too much of it.
    TooMuch,
    NoOperation,
    /// An argument without a value, which the parser lets pass.
    Argument,
}

/// The most that an operation of the document may cost: the one that is named, or any.
pub(super) fn of_document(
    document: &Document,
    named: Option<&str>,
    variables: Option<&Value>,
    strategy: Strategy,
    prices: &Prices,
) -> Result<f64, Unpriced> {
    let mut fragments = BTreeMap::new();
    let mut operations = Vec::new();
    for definition in document.definitions() {
        match definition {
            Definition::FragmentDefinition(fragment) => {
                let name = fragment.fragment_name().and_then(|name| name.name()).ok_or(Unpriced::Fragment)?;
                fragments.insert(name.text().to_string(), fragment);
            }
            Definition::OperationDefinition(operation) => operations.push(operation),
            _ => {}
        }
    }
    let is_named =
        |operation: &&OperationDefinition| operation.name().is_some_and(|name| Some(&*name.text()) == named);
    let chosen: Vec<_> = match operations.iter().find(is_named) {
        Some(one) => vec![one],
        None => operations.iter().collect(),
    };
    let mut steps = STEPS_MAX;
    let mut most: Option<f64> = None;
    for operation in chosen {
        let defaults = defaults_of(operation);
        let mut reckoner = Reckoner {
            strategy,
            prices,
            fragments: &fragments,
            given: variables,
            defaults,
            known: BTreeMap::new(),
            inside: BTreeSet::new(),
            steps,
        };
        let cost = reckoner.operation(operation)?;
        steps = reckoner.steps;
        most = Some(most.map_or(cost, |other| other.max(cost)));
    }
    most.map(|cost| cost.min(COST_MAX)).ok_or(Unpriced::NoOperation)
}

fn defaults_of(operation: &OperationDefinition) -> BTreeMap<String, f64> {
    let definitions = operation.variable_definitions().into_iter().flat_map(|all| all.variable_definitions());
    let default = definitions.filter_map(|definition| {
        let name = definition.variable()?.name()?.text().to_string();
        Some((name, literal(&definition.default_value()?.value()?)?))
    });
    default.collect()
}

/// The number that is written, or how many items.
fn literal(value: &Written) -> Option<f64> {
    match value {
        Written::IntValue(_) | Written::FloatValue(_) => value.source_string().trim().parse().ok(),
        Written::ListValue(list) => Some(list.values().count() as f64),
        _ => None,
    }
}

/// Where a selection stands among the prices: all the places that a path through it may have come to.
type Places<'a> = Vec<&'a Prices>;

struct Reckoner<'a> {
    strategy: Strategy,
    prices: &'a Prices,
    fragments: &'a BTreeMap<String, FragmentDefinition>,
    given: Option<&'a Value>,
    defaults: BTreeMap<String, f64>,
    /// What fragments came to, by name and places.
    known: BTreeMap<(String, Vec<usize>), f64>,
    /// Fragments that are being reckoned.
    inside: BTreeSet<String>,
    steps: usize,
}

impl<'a> Reckoner<'a> {
    fn operation(&mut self, operation: &OperationDefinition) -> Result<f64, Unpriced> {
        let name = match operation.operation_type() {
            Some(kind) if kind.mutation_token().is_some() => "Mutation",
            Some(kind) if kind.subscription_token().is_some() => "Subscription",
            _ => "Query",
        };
        let Some(set) = operation.selection_set() else { return Ok(0.0) };
        self.of_type(&set, name, Vec::new(), LEVELS_MAX)
    }

    /// What is selected of a type, that is known by name.
    fn of_type(
        &mut self,
        set: &SelectionSet,
        name: &str,
        mut places: Places<'a>,
        levels: usize,
    ) -> Result<f64, Unpriced> {
        let own = self.prices.below.get(name);
        let is_new = |own: &&'a Prices| !places.iter().any(|place| std::ptr::eq(*place, *own));
        if let Some(own) = own.filter(is_new) {
            places.push(own);
        }
        let inner = self.set(set, &places, levels)?;
        Ok(match own.and_then(|own| own.price.as_ref()) {
            Some(price) if self.strategy == Strategy::Complexity => {
                inner * price.multiply.unwrap_or(1.0) + price.add.unwrap_or(0.0)
            }
            _ => inner,
        })
    }

    fn set(&mut self, set: &SelectionSet, places: &Places<'a>, levels: usize) -> Result<f64, Unpriced> {
        let levels = levels.checked_sub(1).ok_or(Unpriced::TooMuch)?;
        let mut all = 0.0_f64;
        for selection in set.selections() {
            self.steps = self.steps.checked_sub(1).ok_or(Unpriced::TooMuch)?;
            let one = match selection {
                Selection::Field(field) => self.field(&field, places, levels)?,
                Selection::InlineFragment(inline) => match inline.selection_set() {
                    Some(set) => self.conditional(&set, inline.type_condition(), places, levels)?,
                    None => 0.0,
                },
                Selection::FragmentSpread(spread) => {
                    let name = spread.fragment_name().and_then(|name| name.name());
                    let name = name.ok_or(Unpriced::Fragment)?.text().to_string();
                    self.fragment(name, places, levels)?
                }
            };
            all = if self.strategy == Strategy::Depth { all.max(one) } else { (all + one).min(COST_MAX) };
        }
        Ok(all)
    }

    fn conditional(
        &mut self,
        set: &SelectionSet,
        condition: Option<TypeCondition>,
        places: &Places<'a>,
        levels: usize,
    ) -> Result<f64, Unpriced> {
        match condition.and_then(|condition| condition.named_type()?.name()) {
            Some(name) => self.of_type(set, &name.text(), places.clone(), levels),
            None => self.set(set, places, levels),
        }
    }

    fn fragment(&mut self, name: String, places: &Places<'a>, levels: usize) -> Result<f64, Unpriced> {
        // A place is told by where it lies: prices do not move while a query is reckoned.
        let key = (name, places.iter().map(|place| std::ptr::from_ref(*place).addr()).collect());
        if let Some(cost) = self.known.get(&key) {
            return Ok(*cost);
        }
        let fragment = self.fragments.get(&key.0).ok_or(Unpriced::Fragment)?;
        if !self.inside.insert(key.0.clone()) {
            return Err(Unpriced::Fragment);
        }
        let cost = match fragment.selection_set() {
            Some(set) => self.conditional(&set, fragment.type_condition(), places, levels)?,
            None => 0.0,
        };
        self.inside.remove(&key.0);
        self.known.insert(key, cost);
        Ok(cost)
    }

    fn field(&mut self, field: &Field, places: &Places<'a>, levels: usize) -> Result<f64, Unpriced> {
        let name = field.name().map(|name| name.text().to_string()).unwrap_or_default();
        let mut arguments = field.arguments().into_iter().flat_map(|all| all.arguments());
        if arguments.any(|argument| argument.value().is_none()) {
            return Err(Unpriced::Argument);
        }
        let below: Places<'a> = places.iter().filter_map(|place| place.below.get(&name)).collect();
        let inner = match field.selection_set() {
            Some(set) => self.set(&set, &below, levels)?,
            None => 0.0,
        };
        if self.strategy == Strategy::Depth {
            return Ok(inner + 1.0);
        }
        // The path that is said longest comes first.
        let price = below.iter().find_map(|place| place.price.as_ref());
        Ok(match price {
            None if self.strategy == Strategy::Complexity => inner + 1.0,
            None => inner,
            Some(price) => self.priced(price, field, inner),
        })
    }

    fn priced(&self, price: &Price, field: &Field, inner: f64) -> f64 {
        let arguments: Vec<Argument> =
            field.arguments().into_iter().flat_map(|all| all.arguments()).collect();
        let number = |wanted: &String| {
            let named = |argument: &&Argument| argument.name().is_some_and(|name| name.text() == *wanted);
            let value = arguments.iter().find(named)?.value()?;
            // Less than nothing would have a query pay for another.
            self.number(&value).map(|number| number.max(0.0))
        };
        let factors: Vec<f64> = price.multiply_arguments.iter().filter_map(number).collect();
        let times = factors.iter().product::<f64>() * price.multiply.unwrap_or(1.0);
        let own = price.add.unwrap_or(1.0) + price.add_arguments.iter().filter_map(number).sum::<f64>();
        let is_charged = self.strategy == Strategy::Complexity || !factors.is_empty();
        let own = if is_charged { own } else { 0.0 };
        (inner * times + own).min(COST_MAX)
    }

    /// The number that an argument comes to, or how many items it has.
    fn number(&self, value: &Written) -> Option<f64> {
        let Written::Variable(variable) = value else { return literal(value) };
        let name = variable.name()?.text().to_string();
        match self.given?.get(&name) {
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::Array(items)) => Some(items.len() as f64),
            Some(_) => None,
            None => self.defaults.get(&name).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use apollo_parser::Parser;
    use serde_json::json;

    use super::*;

    fn cost(query: &str, strategy: Strategy, prices: &Prices) -> Result<f64, Unpriced> {
        let variables = json!({"n": 7, "list": [1, 2, 3]});
        of_document(&Parser::new(query).parse().document(), Some("Named"), Some(&variables), strategy, prices)
    }

    fn depth(query: &str) -> Result<f64, Unpriced> {
        cost(query, Strategy::Depth, &Prices::default())
    }

    fn prices(all: &[(&str, Price)]) -> Prices {
        let mut prices = Prices::default();
        all.iter().for_each(|(path, price)| prices.set(path, price.clone()));
        prices
    }

    fn by(argument: &str) -> Price {
        Price { multiply_arguments: vec![argument.to_owned()], ..Price::default() }
    }

    #[test]
    fn depth_is_how_many_fields_stand_in_one_another_through_fragments_too() {
        for (query, expected) in [
            ("{ foo { bar } }", 2.0),
            ("query { a b c d }", 1.0),
            ("{ foo { bar { baz { id } } } other }", 4.0),
            ("{ a { ... on T { b { c } } } }", 3.0),
            ("query { a { ...F } } fragment F on T { b { ...G } } fragment G on U { c { d } }", 4.0),
            ("query Named { a } query Other { a { b } }", 1.0),
            ("query One { a } query Other { a { b } }", 2.0),
        ] {
            assert_eq!(depth(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn fragments_that_contain_themselves_or_are_missing_are_refused() {
        assert_eq!(depth("{ a(filter) }"), Err(Unpriced::Argument));
        for query in [
            "{ ...F } fragment F on T { a { ...F } }",
            "{ ...F } fragment F on T { ...G } fragment G on T { ...F }",
            "{ a { ...Missing } }",
        ] {
            assert_eq!(depth(query), Err(Unpriced::Fragment), "{query}");
        }
        assert_eq!(depth("fragment F on T { a }"), Err(Unpriced::NoOperation));
    }

    #[test]
    fn fragments_that_double_cost_what_is_written_and_chains_of_them_end() {
        let doubling = |count: usize| {
            let body: String =
                (0..count).map(|at| format!(" fragment F{at} on T {{ ...F{0} ...F{0} }}", at + 1)).collect();
            format!("{{ ...F0 }}{body} fragment F{count} on T {{ a }}")
        };
        let sum = |query: &str| cost(query, Strategy::Complexity, &Prices::default());
        assert_eq!(sum(&doubling(20)), Ok(1_048_576.0));
        assert_eq!(sum(&doubling(60)), Ok(COST_MAX));
        assert_eq!(sum(&doubling(5_000)), Err(Unpriced::TooMuch));
        let wide = format!("{{ {} }}", "a ".repeat(STEPS_MAX + 1));
        assert_eq!(depth(&wide), Err(Unpriced::TooMuch));
    }

    #[test]
    fn a_field_costs_its_price_and_what_stands_in_it_as_often_as_it_is_asked_for() {
        let prices = prices(&[
            ("Query.products", by("first")),
            ("Product.reviews", Price { add: Some(5.0), ..by("first") }),
            ("Query.products.nodes.stock", Price { add: Some(9.0), ..Price::default() }),
            ("Query.sum", Price { add_arguments: vec!["of".to_owned()], ..Price::default() }),
        ]);
        for (query, complexity, quantifiers) in [
            ("{ other { a b } }", 3.0, 0.0),
            ("{ products { a } }", 2.0, 0.0),
            ("{ products(first: 50) { a } }", 51.0, 1.0),
            ("query($n: Int) { products(first: $n) { a } }", 8.0, 1.0),
            ("query($m: Int = 3) { products(first: $m) { a } }", 4.0, 1.0),
            ("query($list: [Int]) { products(first: $list) { a } }", 4.0, 1.0),
            ("{ products(first: [1, 2]) { a } }", 3.0, 1.0),
            ("{ products(first: -9) { a } }", 1.0, 1.0),
            ("{ products(first: 1) { nodes { stock } } }", 11.0, 1.0),
            ("{ sum(of: 4) }", 5.0, 0.0),
            // Of a product it is known where the query says so.
            ("{ products(first: 2) { ... on Product { reviews(first: 3) { b } } } }", 17.0, 11.0),
            ("{ products(first: 2) { reviews(first: 3) { b } } }", 5.0, 1.0),
        ] {
            assert_eq!(cost(query, Strategy::Complexity, &prices), Ok(complexity), "{query}");
            assert_eq!(cost(query, Strategy::Quantifiers, &prices), Ok(quantifiers), "{query}");
        }
    }

    #[test]
    fn a_type_has_a_price_of_its_own() {
        let prices = prices(&[("Query", Price { multiply: Some(2.0), ..Price::default() })]);
        assert_eq!(cost("{ a b }", Strategy::Complexity, &prices), Ok(4.0));
        assert_eq!(cost("mutation { a b }", Strategy::Complexity, &prices), Ok(2.0));
    }
}
