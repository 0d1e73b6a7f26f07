//! The Merkle tree of the log, as in [RFC 9162, section 2.1](https://www.rfc-editor.org/rfc/rfc9162#section-2.1)
//! (the same tree as RFC 6962).
//!
//! ```text
//! leaf hash  = SHA-256(0x00 || line)              line: one record without its newline
//! node hash  = SHA-256(0x01 || left || right)
//! root       = SHA-256("") for no leaves; a leaf's hash for one; else the node of the roots of its two parts,
//!              where the left part is the largest power of two smaller than the number of leaves
//! ```
//!
//! [`Frontier`] is all that must be remembered to go on adding leaves: the roots of the perfect trees that a size is
//! made of, largest first. Size 13 = 8 + 4 + 1 needs three hashes:
//!
//! ```text
//!        [ 8 ]            [4]    [1]
//!  0 1 2 3 4 5 6 7     8 9 10 11   12
//! ```

use crate::error::{Error, Kind, Result};
use crate::types::sha256;

/// A SHA-256 value: of a leaf, a node, or a whole tree.
pub type Hash = [u8; 32];

/// The hash of a leaf. The first byte keeps leaves and nodes apart, so that no record can pose as an inner node.
#[must_use]
pub fn leaf_hash(line: &[u8]) -> Hash {
    sha256(&[&[0], line])
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// The right edge of a tree: enough to add leaves and to know the root, in 32 bytes per bit of the size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// A frontier as it was stored, or `None` where the number of nodes does not belong to `size`. Whether the nodes are
    /// the right ones shows only in [`Self::root`].
    #[must_use]
    pub fn from_parts(size: u64, nodes: Vec<Hash>) -> Option<Self> {
        (nodes.len() == size.count_ones() as usize).then_some(Self { size, nodes })
    }

    /// The number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the perfect trees, largest first.
    #[must_use]
    pub fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// Adds a leaf by its hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        // Each low bit that is set is a perfect tree as large as the one just completed.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut nodes = self.nodes.iter().rev();
        let Some(last) = nodes.next() else { return sha256(&[]) };
        nodes.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// The root of the tree over `leaves`.
#[must_use]
pub fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|leaf| frontier.push(*leaf));
    frontier.root()
}

/// Where the roots of perfect trees come from: a list of leaves, or hashes that were stored.
pub trait Nodes {
    /// The root over the leaves from `index << level` up to `(index + 1) << level`.
    ///
    /// # Errors
    /// Where it cannot be had.
    fn node(&self, level: u32, index: u64) -> Result<Hash>;
}

impl Nodes for [Hash] {
    fn node(&self, level: u32, index: u64) -> Result<Hash> {
        let leaves = usize::try_from(index << level).ok().and_then(|start| self.get(start..start + (1 << level)));
        leaves.map(root).ok_or_else(|| Error::internal(format!("no leaves below node {index} of level {level}")))
    }
}

/// The root over the leaves from `start` up to `end`. `start` is a multiple of a power of two that is no smaller than their
/// number, as it is for every part of a tree.
///
/// # Errors
/// Those of `nodes`.
pub fn range_root(nodes: &(impl Nodes + ?Sized), start: u64, end: u64) -> Result<Hash> {
    let (size, mut at, mut perfect) = (end.saturating_sub(start), start, Vec::new());
    for level in (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1) {
        perfect.push(nodes.node(level, at >> level)?);
        at += 1 << level;
    }
    Ok(Frontier { size, nodes: perfect }.root())
}

/// The right edge of the tree over the first `size` leaves.
///
/// # Errors
/// Those of `nodes`.
pub fn frontier(nodes: &(impl Nodes + ?Sized), size: u64) -> Result<Frontier> {
    let (mut at, mut perfect) = (0_u64, Vec::new());
    for level in (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1) {
        perfect.push(nodes.node(level, at >> level)?);
        at += 1 << level;
    }
    Ok(Frontier { size, nodes: perfect })
}

/// The proof that leaf `index` is in the tree over the first `size` leaves, nearest sibling first
/// ([RFC 9162, section 2.1.3.1](https://www.rfc-editor.org/rfc/rfc9162#section-2.1.3.1)).
///
/// # Errors
/// [`Kind::NotFound`] where there is no such leaf; those of `nodes`.
pub fn inclusion_proof(nodes: &(impl Nodes + ?Sized), size: u64, index: u64) -> Result<Vec<Hash>> {
    if index >= size {
        return Err(Error::new(Kind::NotFound, format!("a log of {size} records has none of index {index}")));
    }
    let (mut proof, mut start, mut end) = (Vec::new(), 0, size);
    while end - start > 1 {
        let middle = start + left_part(end - start);
        if index < middle {
            proof.push(range_root(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(nodes, start, middle)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree over the first `old` leaves is a beginning of the one over the first `size`
/// ([RFC 9162, section 2.1.4.1](https://www.rfc-editor.org/rfc/rfc9162#section-2.1.4.1)).
///
/// # Errors
/// [`Kind::NotFound`] where `old` is more than `size`; those of `nodes`.
pub fn consistency_proof(nodes: &(impl Nodes + ?Sized), old: u64, size: u64) -> Result<Vec<Hash>> {
    if old > size {
        return Err(Error::new(Kind::NotFound, format!("a log of {size} records never had {old}")));
    }
    let mut proof = Vec::new();
    if old == 0 || old == size {
        return Ok(proof);
    }
    let (mut start, mut end) = (0, size);
    while old != end {
        let middle = start + left_part(end - start);
        if old <= middle {
            proof.push(range_root(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(nodes, start, middle)?);
            start = middle;
        }
    }
    // A part that begins with the first leaf is the old tree itself, whose root the verifier knows.
    if start > 0 {
        proof.push(range_root(nodes, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The size of the left part of a tree of two or more leaves: the largest power of two below `size`.
const fn left_part(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// Whether `proof` shows that `leaf` is leaf `index` of the tree of `size` leaves with `root`
/// ([RFC 9162, section 2.1.3.2](https://www.rfc-editor.org/rfc/rfc9162#section-2.1.3.2)).
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut node) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            node = node_hash(sibling, &node);
            // A node without a right sibling is its own parent, as often as that is so.
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            node = node_hash(&node, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && node == *root
}

/// Whether `proof` shows that the tree of `old` leaves with `old_root` is a beginning of the one of `new` leaves with
/// `new_root` ([RFC 9162, section 2.1.4.2](https://www.rfc-editor.org/rfc/rfc9162#section-2.1.4.2)).
#[must_use]
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == sha256(&[]);
    }
    if old > new {
        return false;
    }
    // "If first is an exact power of 2, then prepend first_hash to the consistency_path array."
    let (first, rest) = if old.is_power_of_two() {
        (old_root, proof)
    } else {
        let Some((first, rest)) = proof.split_first() else { return false };
        (first, rest)
    };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (mut old_node, mut new_node) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_node = node_hash(sibling, &old_node);
            new_node = node_hash(sibling, &new_node);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            new_node = node_hash(&new_node, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && old_node == *old_root && new_node == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The eight leaves that Certificate Transparency's implementations test with.
    fn known_leaves() -> Vec<Hash> {
        let lines =
            ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        lines.iter().map(|line| leaf_hash(&hex::decode(line).unwrap())).collect()
    }

    #[test]
    fn roots_are_the_known_ones() {
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves = known_leaves();
        for (size, known) in roots.iter().enumerate() {
            assert_eq!(hex::encode(root(&leaves[..size])), *known, "size {size}");
        }
    }

    #[test]
    fn proofs_are_the_known_ones() {
        let leaves = known_leaves();
        let text = |proof: Vec<Hash>| proof.iter().map(hex::encode).collect::<Vec<_>>();
        assert_eq!(
            text(inclusion_proof(leaves.as_slice(), 8, 0).unwrap()),
            [
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ]
        );
        assert_eq!(
            text(consistency_proof(leaves.as_slice(), 6, 8).unwrap()),
            [
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
    }

    /// The definition, word by word.
    fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [leaf] => *leaf,
            _ => {
                let mut k = 1;
                while k * 2 < leaves.len() {
                    k *= 2;
                }
                node_hash(&naive_root(&leaves[..k]), &naive_root(&leaves[k..]))
            }
        }
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    proptest! {
        #[test]
        fn root_is_the_definition(count in 0usize..300) {
            let leaves = leaves(count);
            prop_assert_eq!(root(&leaves), naive_root(&leaves));
        }

        #[test]
        fn a_stored_frontier_goes_on(before in 0usize..200, after in 0usize..50) {
            let leaves = leaves(before + after);
            let mut frontier = Frontier::default();
            leaves[..before].iter().for_each(|leaf| frontier.push(*leaf));
            let mut again = Frontier::from_parts(frontier.size(), frontier.nodes().to_vec()).unwrap();
            leaves[before..].iter().for_each(|leaf| again.push(*leaf));
            prop_assert_eq!(again.root(), naive_root(&leaves));
            prop_assert!(Frontier::from_parts(frontier.size(), vec![[0; 32]; 9]).is_none());
        }

        #[test]
        fn inclusion_holds_for_its_leaf_only(size in 1usize..130, pick in any::<prop::sample::Index>(), flip in any::<u8>()) {
            let leaves = leaves(size);
            let index = pick.index(size);
            let root = naive_root(&leaves);
            let mut proof = inclusion_proof(leaves.as_slice(), size as u64, index as u64).unwrap();
            let holds = |leaf: &Hash, index: usize, proof: &[Hash]| verify_inclusion(leaf, index as u64, size as u64, proof, &root);
            prop_assert!(holds(&leaves[index], index, &proof));
            for other in (0..size).filter(|other| *other != index) {
                prop_assert!(!holds(&leaves[index], other, &proof));
                prop_assert!(!holds(&leaves[other], index, &proof));
            }
            let longer = [proof.as_slice(), &[root]].concat();
            prop_assert!(!holds(&leaves[index], index, &longer));
            if let Some(hash) = proof.first_mut() {
                hash[usize::from(flip % 32)] ^= 1;
                prop_assert!(!holds(&leaves[index], index, &proof));
                prop_assert!(!holds(&leaves[index], index, &proof[1..]));
            }
        }

        #[test]
        fn consistency_holds_for_its_roots_only(new in 1usize..130, pick in any::<prop::sample::Index>()) {
            let leaves = leaves(new);
            let old = pick.index(new + 1);
            let proof = consistency_proof(leaves.as_slice(), old as u64, new as u64).unwrap();
            let (old_root, new_root) = (naive_root(&leaves[..old]), naive_root(&leaves));
            let holds = |old_root: &Hash, new_root: &Hash, proof: &[Hash]| {
                verify_consistency(old as u64, old_root, new as u64, new_root, proof)
            };
            prop_assert!(holds(&old_root, &new_root, &proof));
            prop_assert!(!holds(&[7; 32], &new_root, &proof));
            prop_assert!(!holds(&old_root, &new_root, &[proof.as_slice(), &[old_root]].concat()));
            if old != 0 {
                prop_assert!(!holds(&old_root, &[7; 32], &proof));
            }
            if let Some((_, rest)) = proof.split_first() {
                prop_assert!(!holds(&old_root, &new_root, rest));
            }
        }
    }
}
