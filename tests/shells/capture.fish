# Asks fish for the candidates of a command line: fish --no-config capture.fish FOLDER 'rwkv-forge convert --to '
# FOLDER has the script as rwkv-forge.fish. Prints a candidate a line.
source $argv[1]/rwkv-forge.fish
complete --do-complete $argv[2] | string replace --regex '\t.*' ''
exit 0
