//! What the gateway knows of each provider: paths, authentication, bodies, usage, errors.
