//go:build tools

// Package tools pins the Temporal CLI that the tests run against.
package tools

import _ "github.com/temporalio/cli/cmd/temporal"
