//! A batch as a GPU is given it: all tokens one after the other, and where each row begins.
//!
//! What the graph of [`crate::export::packed`] takes lies in one piece of memory, so that it is one copy. Sizes are rounded
//! up to one of few, so that the device sees the same ones again: rows that nobody asked for fill the rest.

use crate::{
    batch::row::Row,
    export::packed::{Form, Way, inputs, rounded_row, rounded_up},
    pooling::Pooling,
};

/// Tensors begin at multiples of so many bytes, as kernels like it.
pub(super) const ALIGNMENT: usize = 256;

/// What a tensor is made of. Both take four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit integers.
    Int32,
    /// 32-bit floats.
    Float32,
}

/// An input of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// As the graph calls it.
    pub name: &'static str,
    /// What it is made of.
    pub element: Element,
    /// How many there are in each direction.
    pub shape: Vec<usize>,
    /// Bytes before it.
    pub offset: usize,
}

/// The shape of a packed batch, without what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Rows that were asked for.
    pub rows: usize,
    /// Of all rows, those last that fill.
    lengths: Vec<usize>,
    /// Of a row.
    longest: usize,
    form: Form,
    /// What the graph takes, in the order in which it lies in memory.
    pub tensors: Vec<Tensor>,
    /// That all of them take.
    pub bytes: usize,
}

impl Packed {
    /// The shape of a batch of rows of these lengths, of which none is zero, for a graph that is told so much of them. `None` if
    /// it is not known how to pool so.
    pub fn new(rows: &[usize], form: impl Into<Form>) -> Option<Self> {
        let form = form.into();
        let way = Way::of(form.pooling)?;
        let longest = rows.iter().copied().max().unwrap_or(1);
        let tokens: usize = rows.iter().sum();
        let mut missing = rounded_up(tokens) - tokens;
        let mut lengths = rows.to_vec();
        // None is longer than the longest: the network may know no further positions.
        while missing > 0 {
            let length = missing.min(longest);
            lengths.push(length);
            missing -= length;
        }
        let mut packed = Self {
            rows: rows.len(),
            lengths,
            longest: rounded_row(longest),
            form,
            tensors: Vec::new(),
            bytes: 0,
        };
        packed.lay_out(way);
        Some(packed)
    }

    /// Tokens, with those that fill.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn lay_out(&mut self, way: Way) {
        let (rows, sequences, tokens, longest) = (self.rows, self.lengths.len(), self.tokens(), self.longest);
        self.add(inputs::IDS, Element::Int32, &[tokens]);
        self.add(inputs::POSITIONS, Element::Int32, &[tokens]);
        if self.form.types {
            self.add(inputs::TYPES, Element::Int32, &[tokens]);
        }
        if self.form.places {
            self.add(inputs::PLACES, Element::Int32, &[longest]);
        }
        self.add(inputs::OFFSETS, Element::Int32, &[sequences, longest]);
        self.add(inputs::BEFORE, Element::Int32, &[sequences + 1]);
        match way {
            Way::Pick => self.add(inputs::PICKS, Element::Int32, &[rows]),
            Way::Share => {
                self.add(inputs::ROWS, Element::Int32, &[rows, 1]);
                self.add(inputs::ROW_OF_TOKEN, Element::Int32, &[tokens]);
                self.add(inputs::SHARES, Element::Float32, &[tokens]);
            }
        }
    }

    fn add(&mut self, name: &'static str, element: Element, shape: &[usize]) {
        let offset = self.bytes.next_multiple_of(ALIGNMENT);
        self.bytes = offset + shape.iter().product::<usize>() * size_of::<i32>();
        self.tensors.push(Tensor { name, element, shape: shape.to_vec(), offset });
    }

    /// Writes a batch of this shape, each byte once and from front to back: pinned memory is slow otherwise.
    ///
    /// # Panics
    /// If the rows are others than the shape was made for, or there is less memory than it takes.
    pub fn write(&self, rows: &[&Row], memory: &mut [u8]) {
        assert!(rows.iter().map(|row| row.ids.len()).eq(self.lengths[..self.rows].iter().copied()));
        let mut memory = &mut memory[..self.bytes];
        let mut written = 0;
        for tensor in &self.tensors {
            let (gap, rest) = memory.split_at_mut(tensor.offset - written);
            gap.fill(0);
            let bytes = tensor.shape.iter().product::<usize>() * size_of::<i32>();
            let (place, rest) = rest.split_at_mut(bytes);
            self.write_tensor(tensor.name, rows, &mut place.chunks_exact_mut(size_of::<i32>()));
            (memory, written) = (rest, tensor.offset + bytes);
        }
    }

    fn write_tensor<'m>(&self, name: &str, rows: &[&Row], places: &mut impl Iterator<Item = &'m mut [u8]>) {
        let mut put = |number: i32| {
            let place = places.next().expect("a tensor is as large as its shape says");
            place.copy_from_slice(&number.to_ne_bytes());
        };
        let lengths = self.lengths.iter().copied();
        let before = self.lengths.iter().scan(0, |sum, &length| Some(std::mem::replace(sum, *sum + length)));
        match name {
            inputs::IDS => {
                rows.iter().flat_map(|row| &row.ids).for_each(|&id| put(id as i32));
                // Any word fills as well as any other.
                lengths.skip(self.rows).for_each(|length| (0..length).for_each(|_| put(0)));
            }
            inputs::TYPES => {
                for row in rows {
                    let types = row.types.iter().copied().chain(std::iter::repeat(0));
                    types.take(row.ids.len()).for_each(|kind| put(kind as i32));
                }
                lengths.skip(self.rows).for_each(|length| (0..length).for_each(|_| put(0)));
            }
            inputs::PLACES => (0..self.longest).for_each(|at| put(at as i32)),
            inputs::POSITIONS => lengths.for_each(|length| (0..length).for_each(|at| put(at as i32))),
            inputs::OFFSETS => {
                let place = |(i, at): (usize, usize)| (i * self.longest + at) as i32;
                let all = |from: fn(usize) -> usize, to: fn(usize, usize) -> usize| {
                    let rows = self.lengths.iter().enumerate();
                    rows.flat_map(move |(i, &length)| {
                        (from(length)..to(length, self.longest)).map(move |at| (i, at))
                    })
                };
                all(|_| 0, |length, _| length).map(place).for_each(&mut put);
                all(|length| length, |_, longest| longest).map(place).for_each(&mut put);
            }
            inputs::BEFORE => before.chain([self.tokens()]).for_each(|tokens| put(tokens as i32)),
            inputs::PICKS => {
                let last = matches!(self.form.pooling, Pooling::LastToken);
                let pick = |(before, length): (usize, usize)| if last { before + length - 1 } else { before };
                before.zip(lengths).take(self.rows).map(pick).for_each(|token| put(token as i32));
            }
            inputs::ROWS => (0..self.rows).for_each(|row| put(row as i32)),
            inputs::ROW_OF_TOKEN => {
                let row = |row: usize| if row < self.rows { row as i32 } else { -1 };
                (0..).zip(lengths).for_each(|(i, length)| (0..length).for_each(|_| put(row(i))));
            }
            _ => lengths.for_each(|length| {
                (0..length).for_each(|at| put(share(self.form.pooling, at, length).to_bits() as i32));
            }),
        }
    }
}

/// How much of the vector of the token at a place is that of its row.
fn share(pooling: Pooling, at: usize, length: usize) -> f32 {
    let length = length as f32;
    match pooling {
        Pooling::Mean => 1. / length,
        Pooling::MeanSqrtLen => 1. / length.sqrt(),
        Pooling::WeightedMean => (at + 1) as f32 * 2. / (length * (length + 1.)),
        // These take no shares.
        Pooling::Cls | Pooling::LastToken | Pooling::Max => 0.,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(packed: &Packed, memory: &[u8], name: &str) -> Vec<i32> {
        let tensor =
            packed.tensors.iter().find(|tensor| tensor.name == name).expect("there is such a tensor");
        let count = tensor.shape.iter().product::<usize>();
        let bytes = memory[tensor.offset..].chunks_exact(4).take(count);
        bytes.map(|bytes| i32::from_ne_bytes(bytes.try_into().expect("four"))).collect()
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        // Of some the last tokens are a second text.
        let row = (proptest::collection::vec(1u32..1000, 1..40), 0..50usize).prop_map(|(ids, first)| {
            let types = (0..ids.len()).map(|at| u32::from(at >= first)).collect();
            Row::typed(ids, types)
        });
        proptest::collection::vec(row, 1..30)
    }

    proptest! {
        #[test]
        fn each_row_is_found_again(rows in rows()) {
            let rows: Vec<_> = rows.iter().collect();
            let lengths: Vec<_> = rows.iter().map(|row| row.ids.len()).collect();
            let form = Form { pooling: Pooling::Mean, types: true, places: true };
            let packed = Packed::new(&lengths, form).expect("it is known how");
            let mut memory = vec![0xee; packed.bytes];
            packed.write(&rows, &mut memory);
            let read = |name| read(&packed, &memory, name);
            let types = read(inputs::TYPES);
            prop_assert_eq!(types.len(), packed.tokens());
            let (ids, positions, before) = (read(inputs::IDS), read(inputs::POSITIONS), read(inputs::BEFORE));
            prop_assert_eq!(before.last(), Some(&(packed.tokens() as i32)));
            for (row, place) in rows.iter().zip(before.windows(2)) {
                let place = place[0] as usize..place[1] as usize;
                prop_assert!(row.ids.iter().map(|&id| id as i32).eq(ids[place.clone()].iter().copied()));
                let expected = row.types.iter().copied().chain(std::iter::repeat(0)).map(|kind| kind as i32);
                prop_assert!(types[place.clone()].iter().copied().eq(expected.take(place.len())));
                prop_assert!(positions[place.clone()].iter().copied().eq(0..place.len() as i32));
            }
            let mut offsets = read(inputs::OFFSETS);
            let longest = (offsets.len() / (before.len() - 1)) as i32;
            prop_assert!(read(inputs::PLACES).into_iter().eq(0..longest));
            for (at, (offset, position)) in offsets.iter().zip(&positions).enumerate() {
                let row = before.iter().filter(|&&before| before <= at as i32).count() as i32 - 1;
                prop_assert_eq!(*offset, row * longest + position);
            }
            offsets.sort_unstable();
            prop_assert!(offsets.iter().copied().eq(0..offsets.len() as i32), "each place once");
        }

        #[test]
        fn what_is_pooled_is_of_the_row_alone(
            rows in rows(),
            pooling in proptest::sample::select(
                &[Pooling::Mean, Pooling::MeanSqrtLen, Pooling::WeightedMean, Pooling::Cls, Pooling::LastToken][..]
            ),
        ) {
            let rows: Vec<_> = rows.iter().collect();
            let lengths: Vec<_> = rows.iter().map(|row| row.ids.len()).collect();
            let packed = Packed::new(&lengths, pooling).expect("it is known how");
            let mut memory = vec![0xee; packed.bytes];
            packed.write(&rows, &mut memory);
            let ids: Vec<_> = read(&packed, &memory, inputs::IDS).iter().map(|&id| id as f32).collect();
            for (i, row) in rows.iter().enumerate() {
                let hidden: Vec<_> = row.ids.iter().map(|&id| id as f32).collect();
                let expected = crate::pooling::pool(pooling, &hidden, hidden.len(), 1)[0];
                let got = match Way::of(pooling) {
                    Some(Way::Pick) => ids[read(&packed, &memory, inputs::PICKS)[i] as usize],
                    _ => {
                        let shares = read(&packed, &memory, inputs::SHARES).into_iter().map(|x| f32::from_bits(x as u32));
                        let of = read(&packed, &memory, inputs::ROW_OF_TOKEN);
                        let mine = of.iter().zip(shares).zip(&ids).filter(|((of, _), _)| **of == i as i32);
                        mine.map(|((_, share), id)| share * id).sum::<f32>()
                    }
                };
                prop_assert!((expected - got).abs() <= 1e-4 * expected.abs(), "{expected} {got}");
            }
        }

        #[test]
        fn little_is_filled(size in 1..100_000usize) {
            let rounded = rounded_up(size);
            prop_assert!(rounded >= size && rounded < size + (size / 8).max(8));
            prop_assert_eq!(rounded_up(rounded), rounded);
            prop_assert!(rounded_row(size).is_multiple_of(16) && rounded_row(size) < rounded + 16);
            prop_assert_eq!(rounded % 8, 0, "networks that turn positions take eight tokens as a row");
        }
    }

    #[test]
    fn there_are_few_sizes() {
        let mut sizes: Vec<_> = (1..=65_536).map(rounded_up).collect();
        sizes.dedup();
        assert_eq!(sizes.len(), 8 + 8 * 10);
    }

    #[test]
    fn the_largest_cannot_be_had_by_shares() {
        assert_eq!(Packed::new(&[1], Pooling::Max), None);
    }
}
