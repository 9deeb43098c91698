//! Answers whose head is their end.
//!
//! Pingora's filters are not told that an HTTP/2 answer ends with its head, and no body filter is
//! called for it: an empty answer would pass for a whole one. Its modules are told.

use std::any::Any;

use async_trait::async_trait;
use http::Method;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::{HttpModule, HttpModuleBuilder, Module};

use super::relay::stopped;

/// Makes an [`EmptyAnswers`] for each request.
pub(super) struct Builder;

impl HttpModuleBuilder for Builder {
    fn init(&self) -> Module {
        Box::new(EmptyAnswers { head_only: false })
    }
}

/// Refuses a successful answer without a body, unless only its head was asked for.
struct EmptyAnswers {
    head_only: bool,
}

#[async_trait]
impl HttpModule for EmptyAnswers {
    async fn request_header_filter(&mut self, request: &mut RequestHeader) -> pingora::Result<()> {
        self.head_only = request.method == Method::HEAD;
        Ok(())
    }

    async fn response_header_filter(
        &mut self,
        response: &mut ResponseHeader,
        end_of_stream: bool,
    ) -> pingora::Result<()> {
        if end_of_stream && !self.head_only && !response.status.is_informational() {
            return Err(stopped("answer without a body"));
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
