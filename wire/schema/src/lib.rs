//! Schema facts of the Kubernetes API as data: field types, patches, managed fields, OpenAPI and discovery documents.
