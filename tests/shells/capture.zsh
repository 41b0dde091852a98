# Asks an interactive zsh for the candidates of a command line, as the Tab key does: zsh -f capture.zsh FOLDER 'rwkv-forge convert --to '
# FOLDER has the script as _rwkv-forge. Prints a candidate a line.
zmodload zsh/zpty
local here=${0:A:h} line
zpty shell zsh -f -i
zpty -w shell "FOLDER=${(q)1}; source ${(q)here}/inside.zsh"
while zpty -r shell line; do [[ $line == '<ready>'* ]] && break; done
zpty -w -n shell "$2"$'\t'
while zpty -r shell line; do
    line=${line%%[$'\r\n']*}
    [[ $line == *'</candidates>'* ]] && break
    [[ $line == '='* ]] && print -r -- "${line#'='}"
done
zpty -d shell
