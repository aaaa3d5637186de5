// Asks for a URL with Go's net/http and prints what it got.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	answer, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	body, err := io.ReadAll(answer.Body)
	fmt.Println(answer.Proto, answer.Status, string(body), err)
	if answer.StatusCode != 200 {
		os.Exit(1)
	}
}
