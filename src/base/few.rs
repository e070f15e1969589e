//! A list whose first `N` members need no memory of their own.

/// So few members as a rule that a list of its own would be a waste.
#[derive(Debug)]
pub struct Few<T, const N: usize> {
    first: [Option<T>; N],
    len: usize,
    more: Vec<T>,
}

impl<T, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self { first: [const { None }; N], len: 0, more: Vec::new() }
    }
}

impl<T, const N: usize> Few<T, N> {
    /// Adds one at the end.
    pub fn push(&mut self, member: T) {
        match self.first.get_mut(self.len) {
            Some(place) => *place = Some(member),
            None => self.more.push(member),
        }
        self.len += 1;
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().flatten().chain(&self.more)
    }

    /// All of them, in order, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().flatten().chain(&mut self.more)
    }

    /// Takes all of them out, in order.
    pub fn take(&mut self) -> impl Iterator<Item = T> + use<T, N> {
        let Self { first, more, .. } = std::mem::take(self);
        first.into_iter().flatten().chain(more)
    }

    /// Drops those that are not to be kept; the others stay in order.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.take().filter(|member| keep(member)).for_each(|member| self.push(member));
    }
}

#[cfg(test)]
mod tests {
    use super::Few;

    #[test]
    fn members_stay_in_order_wherever_they_lie() {
        let mut few: Few<u32, 2> = Few::default();
        assert!(few.is_empty());
        (0..5).for_each(|number| few.push(number));
        few.iter_mut().for_each(|number| *number *= 10);
        assert_eq!((few.len(), few.iter().copied().collect::<Vec<_>>()), (5, vec![0, 10, 20, 30, 40]));
        few.retain(|number| *number % 20 == 0);
        assert_eq!((few.len(), few.iter().copied().collect::<Vec<_>>()), (3, vec![0, 20, 40]));
    }
}
