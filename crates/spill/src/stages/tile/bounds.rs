//! The bounds of a geometry as well-known binary: OGC 06-103r4 §8.2, with the types of ISO 19125 for Z and M and the flags
//! of EWKB. Read without recursion, so that geometries nested in each other cost no stack.

/// More collections than this inside each other are no geometry that anybody drew.
const MAX_DEPTH: usize = 32;

/// The middle of the bounds: x, y. None for an empty geometry, and for what is no WKB.
pub(super) fn middle_of_wkb(wkb: &[u8]) -> Option<(f64, f64)> {
    let mut reader = Reader { rest: wkb, is_little: true };
    let mut bounds = Bounds::default();
    // How many geometries are still to come, of each collection that is open.
    let mut open = vec![1_u32];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let n_parts = reader.geometry(&mut bounds)?;
        if n_parts > 0 && open.len() == MAX_DEPTH {
            return None;
        }
        open.push(n_parts);
    }
    bounds.middle()
}

struct Reader<'a> {
    rest: &'a [u8],
    is_little: bool,
}

impl Reader<'_> {
    /// Reads a geometry, or the head of one that is made of others: gives their number.
    fn geometry(&mut self, bounds: &mut Bounds) -> Option<u32> {
        self.is_little = self.bytes::<1>()? == [1];
        let kind = self.number()?;
        let (has_z, has_m) = (kind & 0x8000_0000 != 0, kind & 0x4000_0000 != 0);
        if kind & 0x2000_0000 != 0 {
            let _reference_system = self.number()?;
        }
        let kind = kind & 0x0fff_ffff;
        let more = match kind / 1000 {
            0 => usize::from(has_z) + usize::from(has_m),
            1 | 2 => 1,
            3 => 2,
            _ => return None,
        };
        match kind % 1000 {
            1 => self.points(1, more, bounds)?,
            2 => self.line(more, bounds)?,
            3 => (0..self.number()?).try_for_each(|_| self.line(more, bounds))?,
            4..=7 => return self.number(),
            _ => return None,
        }
        Some(0)
    }

    fn line(&mut self, more: usize, bounds: &mut Bounds) -> Option<()> {
        let n = self.number()?;
        self.points(n, more, bounds)
    }

    fn points(&mut self, n: u32, more: usize, bounds: &mut Bounds) -> Option<()> {
        for _ in 0..n {
            bounds.add(self.ordinate()?, self.ordinate()?);
            (0..more).try_for_each(|_| self.ordinate().map(|_| ()))?;
        }
        Some(())
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }

    fn number(&mut self) -> Option<u32> {
        let bytes = self.bytes()?;
        Some(if self.is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn ordinate(&mut self) -> Option<f64> {
        let bytes = self.bytes()?;
        Some(if self.is_little { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) })
    }
}

#[derive(Default)]
struct Bounds {
    least_and_greatest: Option<[(f64, f64); 2]>,
}

impl Bounds {
    /// With another point. An empty point has NaN for its ordinates.
    fn add(&mut self, x: f64, y: f64) {
        if x.is_nan() || y.is_nan() {
            return;
        }
        let [least, greatest] = self.least_and_greatest.get_or_insert([(x, y), (x, y)]);
        *least = (least.0.min(x), least.1.min(y));
        *greatest = (greatest.0.max(x), greatest.1.max(y));
    }

    fn middle(&self) -> Option<(f64, f64)> {
        let [least, greatest] = self.least_and_greatest?;
        Some((f64::midpoint(least.0, greatest.0), f64::midpoint(least.1, greatest.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: f64, y: f64) -> Vec<u8> {
        [&[1][..], &1_u32.to_le_bytes(), &x.to_le_bytes(), &y.to_le_bytes()].concat()
    }

    fn of_parts(kind: u32, parts: &[Vec<u8>]) -> Vec<u8> {
        let n = u32::try_from(parts.len()).unwrap();
        [vec![0], kind.to_be_bytes().to_vec(), n.to_be_bytes().to_vec(), parts.concat()].concat()
    }

    #[test]
    fn the_middle_of_points_lines_polygons_and_collections() {
        assert_eq!(middle_of_wkb(&point(3.0, 4.0)), Some((3.0, 4.0)));
        let square = [(0.0, 0.0), (4.0, 0.0), (4.0, 2.0), (0.0, 0.0)];
        let ring: Vec<u8> = square
            .iter()
            .flat_map(|(x, y): &(f64, f64)| [x.to_be_bytes(), y.to_be_bytes()].concat())
            .collect();
        let ring = [4_u32.to_be_bytes().to_vec(), ring].concat();
        let polygon = of_parts(3, &[ring]);
        assert_eq!(middle_of_wkb(&polygon), Some((2.0, 1.0)));
        let all = of_parts(7, &[polygon, of_parts(4, &[point(8.0, 8.0)])]);
        assert_eq!(middle_of_wkb(&all), Some((4.0, 4.0)));
    }

    #[test]
    fn z_and_m_and_the_reference_system_are_passed_over() {
        let z = [
            &[1][..],
            &1001_u32.to_le_bytes(),
            &1.0_f64.to_le_bytes(),
            &2.0_f64.to_le_bytes(),
            &9.0_f64.to_le_bytes(),
        ];
        assert_eq!(middle_of_wkb(&z.concat()), Some((1.0, 2.0)));
        let with_system =
            [&[1][..], &0x2000_0001_u32.to_le_bytes(), &4326_u32.to_le_bytes(), &point(5.0, 6.0)[5..]];
        assert_eq!(middle_of_wkb(&with_system.concat()), Some((5.0, 6.0)));
    }

    #[test]
    fn what_is_no_wkb_and_what_is_empty_is_nowhere() {
        assert_eq!(middle_of_wkb(b""), None);
        assert_eq!(middle_of_wkb(b"POINT(1 2)"), None);
        assert_eq!(middle_of_wkb(&point(1.0, 2.0)[..20]), None);
        assert_eq!(middle_of_wkb(&point(f64::NAN, f64::NAN)), None);
        let endless = of_parts(7, &[]).into_iter().take(5).chain(u32::MAX.to_be_bytes()).collect::<Vec<_>>();
        assert_eq!(middle_of_wkb(&endless.repeat(1000)), None);
    }
}
