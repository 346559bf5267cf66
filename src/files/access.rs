//! Whether a user of this host can read a file, from modes, owners and groups.
//!
//! Commands that run as root use it: they can read files that the service cannot. It reads `/etc/passwd` and `/etc/group` and
//! knows no other source of users. A file or folder with an access control list counts as readable.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const READ: u32 = 0o4;
const ENTER: u32 = 0o1;

/// The extended attribute of files that have an access control list.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: String,
    id: u32,
    groups: Vec<u32>,
    /// The name of the user's own group.
    group: String,
}

/// Why a user cannot read a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    user: String,
    group: String,
    /// The file, or a folder above it.
    path: PathBuf,
    is_folder: bool,
    mode: u32,
    owner: (u32, u32),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, group, path, is_folder, mode, owner: (owner, of_group) } = self;
        let (path, what, need) =
            (path.display(), if *is_folder { "the folder" } else { "the file" }, if *is_folder { "x" } else { "r" });
        write!(
            f,
            "the user `{user}` of the service cannot read it: {what} {path} has mode {mode:04o} and belongs to user {owner} and \
             group {of_group}, so the next start fails; chgrp {group} {path} && chmod g+{need} {path}"
        )
    }
}

impl User {
    /// Finds a user of this host by name.
    pub fn find(name: &str) -> Option<Self> {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(name, &read("/etc/passwd"), &read("/etc/group"))
    }

    fn parse(name: &str, users: &str, groups: &str) -> Option<Self> {
        let entry = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let mut fields = entry.split(':').skip(1);
        let (id, own) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let (mut ids, mut group) = (vec![own], None);
        for line in groups.lines() {
            let mut fields = line.split(':');
            let (Some(of), Some(number), Some(members)) = (fields.next(), fields.nth(1), fields.next()) else {
                continue;
            };
            let Ok(number) = number.parse::<u32>() else { continue };
            if number == own {
                group.get_or_insert_with(|| of.to_owned());
            } else if members.split(',').any(|member| member == name) {
                ids.push(number);
            }
        }
        Some(Self { name: name.to_owned(), id, groups: ids, group: group.unwrap_or_else(|| own.to_string()) })
    }

    /// Returns why the user cannot read a file. `None` if the user can, or if this process cannot find out.
    pub fn cannot_read(&self, path: &Path) -> Option<Unreadable> {
        let absolute = std::path::absolute(path).ok()?;
        let target = absolute.canonicalize().ok()?;
        let folders = absolute.ancestors().skip(1).chain(target.ancestors().skip(1));
        let mut blocked = folders.map(|folder| (folder, ENTER)).chain([(target.as_path(), READ)]);
        blocked.find_map(|(path, access)| self.refusal(path, access))
    }

    fn refusal(&self, path: &Path, access: u32) -> Option<Unreadable> {
        let metadata = std::fs::metadata(path).ok()?;
        if self.may(&metadata, access) || has_access_list(path) {
            return None;
        }
        Some(Unreadable {
            user: self.name.clone(),
            group: self.group.clone(),
            path: path.to_owned(),
            is_folder: metadata.is_dir(),
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
        })
    }

    fn may(&self, metadata: &Metadata, access: u32) -> bool {
        self.may_access(metadata.mode(), (metadata.uid(), metadata.gid()), access)
    }

    /// Only the first of the three sets of bits that applies counts, as in the kernel.
    fn may_access(&self, mode: u32, (owner, group): (u32, u32), access: u32) -> bool {
        let shift = match () {
            () if self.id == 0 => return true,
            () if self.id == owner => 6,
            () if self.groups.contains(&group) => 3,
            () => 0,
        };
        mode >> shift & access == access
    }
}

fn has_access_list(path: &Path) -> bool {
    let mut nothing: [u8; 0] = [];
    rustix::fs::getxattr(path, ACCESS_LIST, &mut nothing[..]).is_ok_and(|length| length > 0)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const USERS: &str = "root:x:0:0::/root:/bin/sh\ngate:x:7:70::/:/bin/false\ngateway:x:999:990::/:/bin/false\n";
    const GROUPS: &str = "root:x:0:\ngateway:x:990:\ncertificates:x:991:other,gateway\nothers:x:992:gateway2\n";

    #[test]
    fn user_has_its_own_group_and_those_that_name_it() {
        let user = User::parse("gateway", USERS, GROUPS).unwrap();
        assert_eq!((user.id, user.groups.as_slice(), user.group.as_str()), (999, [990, 991].as_slice(), "gateway"));
        assert_eq!(User::parse("gate", USERS, GROUPS).unwrap().group, "70", "a group without a name");
        assert_eq!(User::parse("gat", USERS, GROUPS), None);
    }

    #[test]
    fn owner_group_and_others_have_only_the_access_of_their_own_bits() {
        let user = User::parse("gateway", USERS, GROUPS).unwrap();
        for (mode, owner, can_read) in [
            (0o600, (0, 0), false),
            (0o640, (0, 0), false),
            (0o640, (0, 990), true),
            (0o640, (0, 991), true),
            (0o604, (0, 990), false),
            (0o644, (0, 0), true),
            (0o400, (999, 0), true),
            (0o044, (999, 990), false),
        ] {
            assert_eq!(user.may_access(mode, owner, READ), can_read, "{mode:o} {owner:?}");
        }
        assert!(User::parse("root", USERS, GROUPS).unwrap().may_access(0, (999, 999), READ));
    }

    #[test]
    fn names_the_file_or_the_folder_above_it_that_the_user_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        let (sub, file) = (folder.path().join("keys"), folder.path().join("keys/key.pem"));
        std::fs::create_dir(&sub).unwrap();
        std::fs::write(&file, "key").unwrap();
        let set = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        // A user of another id and of no group of these files.
        let user =
            User { name: "gateway".to_owned(), id: u32::MAX - 7, groups: vec![u32::MAX - 7], group: "g".to_owned() };
        let refusal = |path: &Path, access| user.refusal(path, access).map(|refusal| refusal.to_string());
        set(&file, 0o600);
        let text = refusal(&file, READ).unwrap();
        assert!(text.contains("key.pem has mode 0600") && text.contains("chgrp g "), "{text}");
        set(&file, 0o644);
        assert_eq!(refusal(&file, READ), None);
        set(&sub, 0o750);
        let text = user.cannot_read(&file).unwrap().to_string();
        assert!(text.contains("the folder ") && text.contains("chmod g+x "), "{text}");
        assert_eq!(user.cannot_read(&folder.path().join("none")), None);
    }
}
