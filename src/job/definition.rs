//! What a user's job type declares.

use super::format::{Format, InPlace};
use super::policy::JobDefaults;

/// A unit of work: the struct *is* the payload. Declare it with [`job!`](crate::job!), or by hand:
///
/// ```
/// use jobsled::{Job, JobDefaults, Rkyv, rkyv};
///
/// #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
/// #[rkyv(crate = jobsled::rkyv)]
/// struct Thumbnail {
///     path: String,
///     width: u32,
/// }
///
/// impl Job for Thumbnail {
///     const KIND: &'static str = "thumbnail";
///     type Output = u64; // bytes written
///     type Format = Rkyv;
///
///     fn defaults() -> JobDefaults {
///         JobDefaults::new().queue("media").attempts(5)
///     }
/// }
/// assert_eq!(Thumbnail::VERSION, 1);
/// ```
pub trait Job: Sized + Send + 'static {
    /// The name under which jobs of this type are stored, for ever: 1 to 64 of `a-z 0-9 . _ -`.
    const KIND: &'static str;
    /// Version of the payload. Raise it when the fields change, and register
    /// [`EngineBuilder::upgrade`](crate::EngineBuilder::upgrade) for the stored older ones.
    const VERSION: u16 = 1;
    /// What a successful run returns; kept with the finished job. `()` if nothing.
    type Output: Send + 'static;
    /// How payload and output become bytes: [`Rkyv`](crate::Rkyv) or `Json`.
    type Format: Format<Self> + Format<Self::Output>;

    /// Queue, attempts, backoff and limits, unless the enqueue says otherwise.
    fn defaults() -> JobDefaults {
        JobDefaults::new()
    }
}

/// What a [`handle_view`](crate::EngineBuilder::handle_view) handler borrows: for an rkyv job `Thumbnail`
/// this is `ArchivedThumbnail`.
pub type View<J> = <<J as Job>::Format as InPlace<J>>::View;

/// Implements [`Job`] for a type.
///
/// ```
/// use jobsled::{job, rkyv};
///
/// #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
/// #[rkyv(crate = jobsled::rkyv)]
/// struct SendMail {
///     to: String,
/// }
/// job!(SendMail, kind = "send-mail");
///
/// #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
/// #[rkyv(crate = jobsled::rkyv)]
/// struct Resize {
///     width: u32,
/// }
/// job!(Resize, kind = "resize", version = 2, output = u64, defaults = jobsled::JobDefaults::new().queue("media"));
/// # use jobsled::Job;
/// # assert_eq!((SendMail::KIND, Resize::VERSION), ("send-mail", 2));
/// ```
///
/// In this order, all but `kind` optional: `version` (1), `output` (`()`), `format`
/// ([`Rkyv`](crate::Rkyv)), `defaults` (an expression of type [`JobDefaults`](crate::JobDefaults)).
#[macro_export]
macro_rules! job {
    ($type:ty, kind = $kind:expr $(, version = $version:expr)? $(, output = $output:ty)?
        $(, format = $format:ty)? $(, defaults = $defaults:expr)? $(,)?) => {
        impl $crate::Job for $type {
            const KIND: &'static str = $kind;
            $(const VERSION: u16 = $version;)?
            type Output = $crate::__first_type!($($output,)? (),);
            type Format = $crate::__first_type!($($format,)? $crate::Rkyv,);
            $(fn defaults() -> $crate::JobDefaults { $defaults })?
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __first_type {
    ($first:ty, $($rest:ty,)*) => {
        $first
    };
}
